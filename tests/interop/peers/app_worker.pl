#!/usr/bin/perl
# A worker as people write it: no port, gearmand is expected where it always is.
use strict;
use warnings;

use Gearman::Worker;

my $worker = Gearman::Worker->new(job_servers => ['127.0.0.1']);
$worker->register_function(perl_reverse => sub { scalar reverse $_[0]->arg });
$worker->register_function(
    perl_count => sub {
        my ($job) = @_;
        for my $step (1 .. 3) {
            $job->set_status($step, 3);
            $worker->send_work_data($job, "$step");
        }
        return '!';
    }
);
$worker->work while 1;
