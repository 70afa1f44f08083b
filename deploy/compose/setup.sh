#!/bin/sh
# At the first start: creates a certificate authority, the certificate of Redis, and the token. Later it finds them.
set -eu
umask 077
[ -e /credentials/ca.pem ] && exit 0

cd /tmp
ec() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc "$@" 2>openssl.log || { cat openssl.log >&2; exit 1; }; }
ec -x509 -days 3650 -subj "/CN=example authority" -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.pem
ec -x509 -days 3650 -CA ca.pem -CAkey ca.key -subj "/CN=redis" -keyout server.key -out server.pem \
  -addext "subjectAltName=DNS:redis,DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE"
token=$(openssl rand -hex 32)

cp ca.pem server.pem server.key /redis/
printf %s "$token" >/redis/token
cat >/redis/server.conf <<CONF
port 0
tls-port 6379
tls-cert-file /data/server.pem
tls-key-file /data/server.key
tls-ca-cert-file /data/ca.pem
tls-auth-clients no
requirepass $token
dir /data
appendonly yes
save ""
maxmemory-policy noeviction
CONF
chown -R 999:999 /redis # the user of the images of Redis and Valkey

printf %s "$token" >/credentials/token
cp ca.pem /credentials/ca.part
chown -R 10001:10001 /credentials # the user of the sidecar's image
mv /credentials/ca.part /credentials/ca.pem # last: everything is complete now
