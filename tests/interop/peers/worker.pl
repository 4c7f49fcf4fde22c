#!/usr/bin/perl
# A worker program on Gearman::Worker. Arguments: host port id specification, the last one JSON:
# {"functions": {name: behaviour}, "log": path}. With TLS if there is TLS_CA, TLS_CERT and TLS_KEY.
use strict;
use warnings;

use Gearman::Worker;
use JSON::PP;

my ($host, $port, $id, $json) = @ARGV;
my $specification = decode_json($json);

sub hold {
    my ($workload) = @_;
    $workload =~ /^wait=([^;]+);/ or return;
    open my $gate, '<', $1 or die "$1: $!";    # a FIFO: opens and ends when the test says so
    local $/;
    my $ignored = <$gate>;
    close $gate;
}

my %behaviours = (
    reverse => sub { scalar reverse $_[0]->arg },
    raise   => sub { die $_[0]->arg . "\n" },
    steps   => sub {
        my ($job) = @_;
        $job->set_status(1, 4);
        hold($job->arg);
        $job->set_status(3, 4);
        return 'done';
    },
    record => sub {
        my ($job) = @_;
        hold($job->arg);
        open my $log, '>>', $specification->{log} or die "$specification->{log}: $!";
        print {$log} encode_json({ workload => $job->arg, unique => undef }), "\n";
        close $log;
        return $job->arg;
    },
);

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
my $worker = Gearman::Worker->new(job_servers => [$server], client_id => $id);
for my $name (sort keys %{ $specification->{functions} }) {
    $worker->register_function($name, $behaviours{ $specification->{functions}{$name} });
}
$worker->work while 1;
