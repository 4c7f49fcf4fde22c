"""Who is this, and what may they do: passwords, users, rights, mechanisms, certificates, TLS.

Nothing here waits, opens a socket or knows a job. Time comes as an argument and so does chance: a
function from a number of bytes to that many random ones (`os.urandom` outside of tests). What costs
more than a packet may, a password stretched a hundred thousand times, is handed out as a callable
to be run elsewhere.
"""
