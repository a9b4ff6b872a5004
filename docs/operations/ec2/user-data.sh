#!/bin/sh
# User data of a point of presence on EC2: runs once, as root, at the first boot, and says what only this
# instance knows. The rest of the settings, being the same everywhere, may be appended to the file below.
set -eu

metadata=http://169.254.169.254/latest
# IMDSv2: nothing is told without a token.
token=$(curl --silent --show-error --fail --retry 20 --retry-all-errors --retry-delay 1 --max-time 30 \
    --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
ask() {
    curl --silent --show-error --fail --max-time 30 --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1"
}

place=$(ask placement/region)
# Where other points of presence reach this one: public-ipv4 where no private network leads from each to each.
address=$(ask local-ipv4)
case $place in
sa-*) region=sa ;;
us-* | ca-* | mx-*) region=us ;;
eu-* | af-* | il-* | me-*) region=eu ;;
ap-*) region=ap ;;
*) echo "no region of edgeproxy is known for $place" >&2 && exit 1 ;;
esac

mkdir -p /etc/edgeproxy
umask 027
cat >/etc/edgeproxy/edgeproxy.env.new <<SETTINGS
EDGEPROXY_REGION=$region
EDGEPROXY_LISTEN_ADDR=0.0.0.0:8080
EDGEPROXY_DB_PATH=/var/lib/edgeproxy/routing.db
EDGEPROXY_STATE_DIR=/var/lib/edgeproxy/state
EDGEPROXY_REPLICATION_NODE_ID=$(ask instance-id)
EDGEPROXY_REPLICATION_GOSSIP_ADVERTISE_ADDR=$address:4001
EDGEPROXY_REPLICATION_TRANSPORT_ADVERTISE_ADDR=$address:4002
SETTINGS
chgrp edgeproxy /etc/edgeproxy/edgeproxy.env.new
mv /etc/edgeproxy/edgeproxy.env.new /etc/edgeproxy/edgeproxy.env

# For affinity over restarts and for tokens, which may be made before the first start.
install --directory --owner edgeproxy --group edgeproxy --mode 0750 /var/lib/edgeproxy/state
database=/var/lib/edgeproxy/routing.db
[ -e "$database" ] || runuser -u edgeproxy -- /opt/edgeproxy/bin/edgeproxy db init "$database"

# The unit waits for the settings. Nothing waits for the unit: it is ordered after whatever runs this script.
systemctl --no-block start edgeproxy.service
