#!/usr/bin/perl
# A client program on Gearman::Client: one JSON request per input line, one JSON event per output
# line. Arguments: host port. With TLS if there is TLS_CA, TLS_CERT and TLS_KEY.
use strict;
use warnings;

use Gearman::Client;
use Gearman::Task;
use JSON::PP;

$| = 1;
my ($host, $port) = @ARGV;
my $server = "$host:$port";
if ($ENV{TLS_CA}) {
    $server = {
        host      => $host,
        port      => $port,
        use_ssl   => 1,
        ca_file   => $ENV{TLS_CA},
        cert_file => $ENV{TLS_CERT},
        key_file  => $ENV{TLS_KEY},
    };
}
my $client = Gearman::Client->new(job_servers => [$server], exceptions => 1);

sub say_event {
    my ($event, %fields) = @_;
    print encode_json({ event => $event, %fields }), "\n";
}

# The library prefixes the server it spoke to; only what comes after it is the server's own.
sub bare {
    my ($handle) = @_;
    return defined $handle ? (split m{//}, $handle, 2)[1] : undef;
}

while (my $line = <STDIN>) {
    my $request = decode_json($line);
    if ($request->{op} eq 'ask') {
        my $state = $client->get_status("$host:$port//$request->{handle}");
        say_event(
            'state',
            known       => $state->known   ? JSON::PP::true : JSON::PP::false,
            running     => $state->running ? JSON::PP::true : JSON::PP::false,
            numerator   => 0 + ($state->progress ? $state->progress->[0] : 0),
            denominator => 0 + ($state->progress ? $state->progress->[1] : 0),
        );
        next;
    }
    my $workload = pack 'H*', $request->{hex};
    my %options = (priority => $request->{priority});
    $options{uniq} = $request->{unique} if defined $request->{unique};
    if ($request->{background}) {
        my $handle = $client->dispatch_background($request->{function}, \$workload, \%options);
        say_event('created', handle => bare($handle));
    }
    else {
        my $task = Gearman::Task->new(
            $request->{function},
            \$workload,
            {   %options,
                on_complete  => sub { say_event('complete', hex => unpack 'H*', ${ $_[0] }) },
                on_data      => sub { say_event('data',     hex => unpack 'H*', ${ $_[0] }) },
                on_warning   => sub { say_event('warning',  hex => unpack 'H*', ${ $_[0] }) },
                on_exception => sub { say_event('exception', hex => unpack 'H*', $_[0]) },
                on_fail      => sub { say_event('fail') },
                on_status    => sub { say_event('status', numerator => 0 + $_[0], denominator => 0 + $_[1]) },
            }
        );
        my $tasks = $client->new_task_set;
        say_event('created', handle => bare($tasks->add_task($task)));
        $tasks->wait;
    }
    say_event('end');
}
