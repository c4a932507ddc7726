# Slow storage for scripts/bench: an nginx that answers as S3 does after 30 ms, and a directory whose reads take 5 ms.
# Sourced; needs $out, $data and $at.

serve() { # PERCENT: serves $data as the bucket `data`, that many in a hundred answers 503; sets $server, the log is $out/nginx/log
    local percent=$1 directory=$out/nginx
    command -v nginx >/dev/null && [ -e /usr/lib/nginx/modules/ngx_http_echo_module.so ] \
        || apt-get install -qq -y --no-install-recommends nginx-light libnginx-mod-http-echo >/dev/null
    mkdir -p "$directory"
    : > "$directory/log"
    server=127.0.0.1:$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat > "$directory/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
user root;
worker_processes 2;
daemon off;
pid $directory/pid;
error_log $directory/error;
worker_rlimit_nofile 4096;
events { worker_connections 2048; }
http {
    log_format ranges '\$status \$request_uri \$http_range';
    access_log $directory/log ranges;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path $directory/body; proxy_temp_path $directory/proxy; fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi; scgi_temp_path $directory/scgi;
    split_clients \$request_id \$busy { $percent% 1; * 0; }
    server {
        listen $server;
        location /data/ {
            if (\$busy) { return 503; }
            echo_sleep 0.03;
            echo_exec @file;
        }
        location @file { rewrite ^/data/(.*)$ /\$1 break; root $data; }
    }
}
CONF
    [ "$percent" != 0 ] || sed -i 's/{ 0% 1; \* 0; }/{ * 0; }/' "$directory/nginx.conf"
    nginx -c "$directory/nginx.conf" &
    nginx_pid=$!
    until curl -s -o /dev/null "http://$server/"; do sleep 0.1; done
    export AWS_ENDPOINT_URL=http://$server AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
}
unserve() {
    kill "$nginx_pid" && wait "$nginx_pid" || true
}
ranges() { # what was asked for and given since the log was emptied, as PATH FIRST LAST
    sed -n 's/^206 \([^ ]*\) bytes=\([0-9]*\)-\([0-9][0-9]*\)$/\1 \2 \3/p' "$out/nginx/log"
}
slowly() { # DIRECTORY AT: the directory with 5 ms a read
    # shellcheck disable=SC2046
    gcc -O2 -o "$out/slowfs" ../shared/slowfs.c $(pkg-config --cflags --libs fuse3)
    mkdir -p "$2"
    LATENCY_US=5000 "$out/slowfs" "$1" "$2" &
    until mountpoint -q "$2"; do sleep 0.1; done
}
