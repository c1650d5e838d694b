#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The servers of the test network, in one container with the certificates at /tls.
# It prints "ready" once all of them take connections.
set -e

install -d /srv/www/files /run/sshd /root/.ssh
head -c 3000000 /dev/zero | tr '\0' x >/srv/www/files/big
echo small >/srv/www/files/small

# A repository for clients without smart HTTP.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@test
git init -q -b main /tmp/work
git -C /tmp/work commit -q --allow-empty -m first
git clone -q --bare /tmp/work /srv/www/files/repo.git
git -C /srv/www/files/repo.git update-server-info

cat >/etc/nginx/nginx.conf <<'END'
user www-data;
worker_processes 1;
pid /run/nginx.pid;
events { worker_connections 512; }
http {
	access_log off;
	error_log /dev/null;
	large_client_header_buffers 8 128k;
	client_max_body_size 0;
	keepalive_requests 20;
	ssl_certificate /tls/server.pem;
	ssl_certificate_key /tls/server.key;
	server {
		listen 80;
		listen 443 ssl http2;
		location / { return 200 "$request_method $host $request_uri $server_protocol\n"; }
		location /page { default_type text/html; return 200 "<title>page</title><p id=a>the page of $host</p>\n"; }
		location /files { root /srv/www; }
		location /echo { proxy_pass http://127.0.0.1:8080; proxy_set_header Host $host; }
		location /events { proxy_pass http://127.0.0.1:8080; proxy_buffering off; }
	}
	server {
		listen 8443 ssl;
		ssl_client_certificate /tls/ca.pem;
		ssl_verify_client on;
		location / { return 200 "client $ssl_client_s_dn\n"; }
	}
}
END
nginx

redis-server --port 6379 --tls-port 6380 --tls-cert-file /tls/server.pem --tls-key-file /tls/server.key --tls-ca-cert-file /tls/ca.pem \
	--tls-auth-clients no --protected-mode no --save '' --daemonize yes >/dev/null
memcached -u nobody -l 0.0.0.0 -d

ssh-keygen -A >/dev/null
ssh-keygen -y -f /etc/programs/client.key >/root/.ssh/authorized_keys
/usr/sbin/sshd
printf 'use chroot = no\n[files]\npath = /srv/www/files\nuid = root\nread only = yes\n' >/etc/rsyncd.conf
rsync --daemon

install -o postgres -m 600 /tls/server.key /etc/postgresql/server.key
conf=$(echo /etc/postgresql/*/main)
printf "listen_addresses = '*'\nfsync = off\nssl = on\nssl_cert_file = '/tls/server.pem'\nssl_key_file = '/etc/postgresql/server.key'\n" >>"$conf/postgresql.conf"
echo 'host all all 0.0.0.0/0 trust' >>"$conf/pg_hba.conf"
pg_ctlcluster "$(basename "$(dirname "$conf")")" main start

install -d -o mysql /run/mysqld
install -o mysql -m 600 /tls/server.key /etc/mysql/server.key
mariadbd --user=mysql --bind-address=0.0.0.0 --ssl-cert=/tls/server.pem --ssl-key=/etc/mysql/server.key >/dev/null 2>&1 &

# Clients meet servers that offer a single old key exchange.
server() { openssl s_server -accept "$1" -cipher "$2:@SECLEVEL=1" -tls1_2 -www -cert /tls/server.pem -key /tls/server.key >/dev/null 2>&1 & }
server 4433 DHE-RSA-AES128-GCM-SHA256
server 4434 AES128-GCM-SHA256

python3 /srv/peer.py &

for port in 22 80 443 554 873 3306 4222 4433 4434 5432 6379 6380 6667 8080 8443 11211; do
	until nc -z 127.0.0.1 $port; do sleep 0.1; done
done
mysql -e "create user guest@'%' identified by 'guest'"
echo ready
wait
