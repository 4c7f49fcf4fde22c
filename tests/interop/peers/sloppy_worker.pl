#!/usr/bin/perl
# A worker whose library leaves parts of its packets out: an empty result, a false one, a status
# without denominator, an empty warning. Arguments: host port.
use strict;
use warnings;

use Gearman::Worker;

my ($host, $port) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => ["$host:$port"]);
$worker->register_function(empty => sub {''});
$worker->register_function(false => sub {'0'});
$worker->register_function(
    half_status => sub {
        $worker->send_work_status($_[0], 1, 2);
        return 'done';
    }
);
$worker->register_function(
    empty_warning => sub {
        $worker->send_work_warning($_[0], '');
        $worker->send_work_data($_[0], '');
        return 'done';
    }
);
# Milliseconds by the protocol, seconds by the library's manual.
$worker->register_function(timed => 5, sub {'in time'});
$worker->work while 1;
