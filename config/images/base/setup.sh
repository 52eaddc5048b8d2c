#!/bin/sh
# Runs once, as root, while the base image is built.
set -eu
bundle=/tmp/base/ca-bundle.crt
store=/etc/ssl/certs/ca-certificates.crt

if [ -n "${LABCOMMONS_DEBIAN_MIRROR:-}" ]; then
    rm -f /etc/apt/sources.list.d/*
    for suite in trixie trixie-updates; do
        echo "deb $LABCOMMONS_DEBIAN_MIRROR $suite main"
    done >/etc/apt/sources.list
fi
# Security updates in every configuration: as named, else beside the archive, as mirrors have them.
if ! grep -rqs -- -security /etc/apt/sources.list /etc/apt/sources.list.d; then
    archive=$(sed -n 's,^deb \([^ ]*\) trixie .*,\1,p' /etc/apt/sources.list | head -n 1)
    security=${LABCOMMONS_DEBIAN_SECURITY:-${archive:+${archive%/}-security}}
    if [ -z "$security" ]; then
        echo "where security updates are is not known: name it in LABCOMMONS_DEBIAN_SECURITY" >&2
        exit 1
    fi
    echo "deb $security trixie-security main" >>/etc/apt/sources.list
fi

cat >/etc/apt/apt.conf.d/90labcommons <<'CONF'
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
CONF

if ! [ -s "$store" ]; then
    # A mirror over TLS has to be trusted before its ca-certificates can be installed.
    [ -s "$bundle" ] && set -- -o "Acquire::https::CaInfo=$bundle"
    apt-get "$@" update -q
    apt-get "$@" install -y -q ca-certificates
    rm -rf /var/lib/apt/lists/*
fi

# update-ca-certificates wants one certificate a file; those that Debian has already are left out.
perl -e '
    undef $/;
    my $pem = qr/-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----/s;
    my ($bundle, $store) = map { open(my $file, "<", $_) or die "$_: $!\n"; scalar <$file> } @ARGV;
    my %known = map { s/\s//gr => 1 } $store =~ /$pem/g;
    my $number = 0;
    while ($bundle =~ /$pem/g) {
        my ($text, $body) = ($&, $1);
        $body =~ s/\s//g;
        next if $known{$body}++;
        open(my $out, ">", sprintf("/usr/local/share/ca-certificates/site-%03d.crt", ++$number)) or die $!;
        print $out "$text\n";
    }
    print "$number certificates added to the trust store\n";
' "$bundle" "$store"
update-ca-certificates

if ! apt-get update -q -o APT::Update::Error-Mode=any; then
    echo "Debian's mirror does not answer, or has no security updates (see above):" \
        "LABCOMMONS_DEBIAN_MIRROR and LABCOMMONS_DEBIAN_SECURITY name others" >&2
    exit 1
fi
apt-get upgrade -y -q --with-new-pkgs
rm -rf /var/lib/apt/lists/*

groupadd --gid 990 labcommons
useradd --uid 990 --gid 990 --home-dir /srv/labcommons --no-create-home --shell /usr/sbin/nologin labcommons
install -d -o 990 -g 990 /srv/labcommons /srv/labcommons/data
