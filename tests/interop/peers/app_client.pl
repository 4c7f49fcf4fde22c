#!/usr/bin/perl
# A client as people write it: no port. Arguments: functions to call with a workload.
use strict;
use warnings;

use Gearman::Client;
use Time::HiRes ();

$| = 1;
my $client = Gearman::Client->new(job_servers => ['127.0.0.1']);
for my $function (@ARGV) {
    my @seen;
    my $result = $client->do_task(
        $function => 'abc',
        {   on_status => sub { push @seen, "$_[0]/$_[1]" },
            on_data   => sub { push @seen, ${ $_[0] } },
            uniq      => 'unique-perl',
        }
    );
    print "$function: @seen ${$result}\n";
    my $handle = $client->dispatch_background($function => 'abc');
    print "$function in the background: ", $handle ? 'taken' : 'refused';
    while (1) {
        my $status = $client->get_status($handle);
        last if !$status->known;
        Time::HiRes::sleep(0.001);
    }
    print ", done\n";
}
my $servers = $client->get_job_server_status;
for my $server (sort keys %{$servers}) {
    for my $function (sort grep {/^(php|perl)_/} keys %{ $servers->{$server} }) {
        my $row = $servers->{$server}{$function};
        print "$function: $row->{queued} queued, $row->{running} running, $row->{capable} capable\n";
    }
}
