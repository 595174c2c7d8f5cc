# One POP3 session by Perl's Net::POP3, as told on standard input.
#
# In: JSON {"host", "port", "transport": "plain" | "STLS" | "POP3S", "ca": PEM file, "mechanism",
#   "user", "password", "numbers": [...], "delete": true | false}.
# Out: JSON {"list", "uidl", "messages": [...], "heads": [TOP 0 of each]} or {"error": {"step",
#   "text"}}. Octets go out as Latin-1 text. The dialogue goes to standard error.
use strict;
use warnings;
use Authen::SASL;
use JSON::PP;
use Net::POP3;

my $order = decode_json(do { local $/; <STDIN> });
my $json  = JSON::PP->new->ascii->canonical;

sub fail {
    my ($step, $text) = @_;
    print $json->encode({ error => { step => $step, text => "$text" } });
    exit 0;
}

my %tls = (SSL_ca_file => $order->{ca}, SSL_verify_mode => 1);
my $pop = Net::POP3->new(
    $order->{host},
    Port    => $order->{port},
    Timeout => 30,
    Debug   => 1,
    $order->{transport} eq 'POP3S' ? (SSL => 1, %tls) : (),
) or fail('connect', $@);
if ($order->{transport} eq 'STLS') {
    $pop->starttls(%tls) or fail('connect', $@);
}

my ($mechanism, $user, $password) = @$order{qw(mechanism user password)};
my $is_in;
if    ($mechanism eq 'USER') { $is_in = $pop->login($user, $password) }
elsif ($mechanism eq 'APOP') { $is_in = $pop->apop($user, $password) }
else {
    my $sasl = Authen::SASL->new(
        mechanism => $mechanism,
        callback  => { user => $user, authname => '', pass => $password },
    );
    $is_in = $pop->auth($sasl);
}
defined $is_in && $is_in or fail('login', $pop->message);

# CLIENT: Net::POP3 3.14 ends lines by LF in the clear and by CRLF over TLS.
sub octets { return join('', map { s/\r?\n\z/\r\n/r } @{ $_[0] }) }

my $answer = { list => $pop->list, uidl => $pop->uidl };
for my $number (@{ $order->{numbers} }) {
    push @{ $answer->{messages} }, octets($pop->get($number));
    push @{ $answer->{heads} },    octets($pop->top($number, 0));
    $pop->delete($number) if $order->{delete};
}
$pop->quit;
print $json->encode($answer);
