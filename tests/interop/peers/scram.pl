#!/usr/bin/perl
# Authen::SCRAM as a client. Arguments: user password. Says `C: ` and hears `S: `, in base64.
use strict;
use warnings;

use Authen::SCRAM::Client;
use MIME::Base64;

$| = 1;
my ($user, $password) = @ARGV;
my $client = Authen::SCRAM::Client->new(username => $user, password => $password, digest => 'SHA-256');

sub say_it { print 'C: ', encode_base64($_[0], ''), "\n" }

sub hear {
    my $line = <STDIN> // exit 1;
    $line =~ /^S: (\S*)/ or die $line;
    return decode_base64($1);
}

say_it("SCRAM-SHA-256\0" . $client->first_msg);
say_it($client->final_msg(hear()));
$client->validate(hear());
print "Negotiation complete\n";
