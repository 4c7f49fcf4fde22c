#!/usr/bin/perl
# Authen::SASL as a client. Arguments: mechanism user password. Says `C: ` and hears `S: `, in base64.
use strict;
use warnings;

use Authen::SASL qw(Perl);
use MIME::Base64;

$| = 1;
my ($mechanism, $user, $password) = @ARGV;
my $sasl = Authen::SASL->new(
    mechanism => $mechanism,
    callback  => { user => $user, pass => $password },
);
my $client = $sasl->client_new('gearman', 'localhost');
print 'C: ', encode_base64($client->mechanism . "\0" . $client->client_start, ''), "\n";
# Neither PLAIN nor EXTERNAL has more to say, but the latter does not know that.
print "Negotiation complete\n" if $mechanism eq 'EXTERNAL' || !$client->need_step;
