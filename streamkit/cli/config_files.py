"""The files that `config` prints: by program the usual place of the file, and its text.

`@APP@`, `@UPSTREAM@`, `@HOST@`, `@PORT@`, `@PATH@` and `@NAME@` are filled in. The tests run nginx, Caddy, gunicorn and
systemd over them, and Apache where it is installed.
"""

from __future__ import annotations

from typing import Final

_NGINX: Final = """\
# nginx, for the http block: /etc/nginx/conf.d/*.conf
upstream streamkit_app {
    server @UPSTREAM@;
    keepalive 16;
}

server {
    listen 80;
    server_name @NAME@;

    # Pages: as usual.
    location / {
        proxy_pass http://streamkit_app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }

    # Streams.
    location @PATH@ {
        proxy_pass http://streamkit_app;
        # HTTP/1.0, the default before 1.29.7, makes a stream that broke off look complete.
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        # Each event at once. "X-Accel-Buffering: no", which streamkit sends, does the same for one answer.
        proxy_buffering off;
        proxy_cache off;
        gzip off;
        # Without a byte; the heartbeat is every 15 s, the default here 60 s.
        proxy_read_timeout 1h;
        # A reader that takes nothing for so long is let go.
        send_timeout 60s;
    }
}
"""

_CADDY: Final = """\
# Caddy: /etc/caddy/Caddyfile
http://@NAME@ {
	# Pages may be compressed; a stream must not be held back for it.
	@pages not path @PATH@ @PATH@/*
	encode @pages gzip zstd

	reverse_proxy @UPSTREAM@ {
		# Each event at once. For text/event-stream this is the default; it is not for CSV and JSON lines.
		flush_interval -1
		# No "response_buffers", and no "read_timeout" below the heartbeat of 15 s.
		# After a reload of the configuration streams go on so long; without it they are cut at once.
		stream_close_delay 1m
	}
}
"""

_APACHE: Final = """\
# Apache 2.4 with mod_proxy, mod_proxy_http, mod_setenvif: /etc/apache2/sites-available/site.conf
<VirtualHost *:80>
    ServerName @NAME@

    # Streams first: the first ProxyPass that matches is taken. flushpackets: each event at once. timeout: seconds
    # without a byte; the heartbeat is every 15 s.
    ProxyPass "@PATH@" "http://@UPSTREAM@@PATH@" flushpackets=on timeout=3600
    ProxyPass "/" "http://@UPSTREAM@/"
    ProxyPassReverse "/" "http://@UPSTREAM@/"

    # mod_deflate would hold events back until a block is full.
    SetEnvIf Request_URI "^@PATH@" no-gzip=1 no-brotli=1

    # mod_mpm_event: every open stream holds one of these threads (ThreadsPerChild, MaxRequestWorkers) while data moves.
</VirtualHost>
"""

_GUNICORN: Final = '''\
"""gunicorn: gunicorn.conf.py"""

# Optional: a worker that is told to stop ends its streams at once, so that clients come back to the next worker.
from streamkit.servers.gunicorn import *

wsgi_app = "@APP@"
bind = "@UPSTREAM@"

# Streams leave the threads of a worker, be it sync or gthread. What stays on them (tables, files, and all streams where
# the log says why) would keep a sync worker from everything else, and have it killed after `timeout` seconds of one
# answer, whether data flows or not; a threaded worker goes on.
worker_class = "gthread"

# More than one: give the hub a URL that they share, such as sqlite:////var/lib/app/events.db.
workers = 2

# For pages, and for tables and files that are being sent; thousands of event streams need none of them.
threads = 4

# Connections that a worker has at once, idle ones included; streams that have left it do not count.
worker_connections = 1000

# For a worker that does not answer the master at all.
timeout = 30

# After SIGTERM, for what is still on the threads.
graceful_timeout = 10

# Behind a proxy that keeps its connections open.
keepalive = 75

# A worker that is replaced ends its streams: spread it, or leave it off.
# max_requests = 10000
# max_requests_jitter = 2000

accesslog = "-"
'''

_SYSTEMD: Final = """\
# systemd: /etc/systemd/system/streamkit-app.service
[Unit]
Description=@APP@ under gunicorn
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
DynamicUser=yes
# /var/lib/streamkit-app, the folder that this user may write to. The hub for more than one worker is
# Hub("sqlite:////var/lib/streamkit-app/events.db").
StateDirectory=streamkit-app
WorkingDirectory=/srv/app
# Four threads are for pages, tables and files: streams leave them. The hooks (-c) end streams at once at a stop.
ExecStart=/srv/app/.venv/bin/gunicorn -c python:streamkit.servers.gunicorn --threads 4 --bind @UPSTREAM@ @APP@
ExecReload=/bin/kill -HUP $MAINPID
# SIGTERM goes to the master alone, which lets its workers finish.
KillMode=mixed
# Longer than gunicorn's graceful timeout of 30 s.
TimeoutStopSec=40
Restart=on-failure
# One descriptor a stream, and some; the default soft limit is 1024.
LimitNOFILE=65536
PrivateTmp=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""

_DOCKER: Final = """\
# Docker: Dockerfile
FROM python:3.13-slim

WORKDIR /srv/app
COPY . .
# The application's own; among them gunicorn and, as the path of its wheel (`pip wheel` makes it), streamkit-wsgi.
RUN pip install --no-cache-dir -r requirements.txt

# What the application may write to. The hub for more than one worker is Hub("sqlite:////var/lib/app/events.db");
# for more than one machine it is redis://.
RUN useradd --system --user-group app && install -d -o app -g app /var/lib/app
VOLUME /var/lib/app
USER app

# Prints reach the log at once.
ENV PYTHONUNBUFFERED=1
EXPOSE @PORT@

# In the exec form SIGTERM reaches gunicorn itself, not a shell, and the hooks (-c) end streams at once. `docker stop`
# kills after 10 s: docker stop --time 40 where the graceful timeout, for tables and files, is longer.
STOPSIGNAL SIGTERM
# Four threads are for pages, tables and files: streams leave them. One descriptor a stream: docker run --ulimit
# nofile=65536:65536. /dev/shm: the heartbeat file of a worker on a slow disk can block it.
CMD ["gunicorn", "-c", "python:streamkit.servers.gunicorn", "--threads", "4", "--worker-tmp-dir", "/dev/shm", \\
     "--graceful-timeout", "8", "--bind", "0.0.0.0:@PORT@", "@APP@"]
"""

_KUBERNETES: Final = """\
# Kubernetes, with ingress-nginx: kubectl apply -f streamkit-app.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: streamkit-app
spec:
  # More than one: what is published in a pod reaches the others by Redis alone, Hub("redis://HOST:6379/0?stream=NAME").
  replicas: 2
  selector:
    matchLabels: {app: streamkit-app}
  template:
    metadata:
      labels: {app: streamkit-app}
    spec:
      # Longer than preStop and gunicorn's graceful timeout together.
      terminationGracePeriodSeconds: 40
      containers:
        - name: app
          image: registry.example.org/app:latest
          args:
            - gunicorn
            # The hooks: streams end at once when the pod is told to stop.
            - --config=python:streamkit.servers.gunicorn
            # For pages, tables and files: streams leave them.
            - --threads=4
            - --graceful-timeout=20
            - --bind=0.0.0.0:@PORT@
            - "@APP@"
          ports:
            - containerPort: @PORT@
          readinessProbe:
            # On a path that is no stream.
            httpGet: {path: /, port: @PORT@}
          lifecycle:
            preStop:
              # Until the ingress has learned that this pod is going; then SIGTERM ends the streams, and their clients
              # come back to another pod.
              exec: {command: ["sleep", "5"]}
---
apiVersion: v1
kind: Service
metadata:
  name: streamkit-app
spec:
  selector: {app: streamkit-app}
  ports:
    - port: 80
      targetPort: @PORT@
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  # For streams alone. Pages have another Ingress, without these annotations.
  name: streamkit-app-streams
  annotations:
    # Each event at once; HTTP/1.1 to the pods is the default here.
    nginx.ingress.kubernetes.io/proxy-buffering: "off"
    # Seconds without a byte; the heartbeat is every 15 s, the default here 60 s.
    nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"
spec:
  ingressClassName: nginx
  rules:
    - host: @NAME@
      http:
        paths:
          - path: @PATH@
            pathType: Prefix
            backend:
              service:
                name: streamkit-app
                port: {number: 80}
"""

FILES: Final[dict[str, tuple[str, str]]] = {
    "apache": ("/etc/apache2/sites-available/site.conf", _APACHE),
    "caddy": ("/etc/caddy/Caddyfile", _CADDY),
    "docker": ("Dockerfile", _DOCKER),
    "gunicorn": ("gunicorn.conf.py", _GUNICORN),
    "k8s": ("streamkit-app.yaml", _KUBERNETES),
    "nginx": ("/etc/nginx/conf.d/site.conf", _NGINX),
    "systemd": ("/etc/systemd/system/streamkit-app.service", _SYSTEMD),
}
"""By the name on the command line: where the file usually lies, and its text."""
