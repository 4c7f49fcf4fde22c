"""What the tests of trigear itself stand on: a clock to set, a server in memory, transcripts."""
