"""nginx's configuration as the site's cache of packages: from the site file to its text. Pure.

nginx keeps and gives out; it reaches nothing but the fetcher, at a socket. What is kept, and for
how long, the fetcher says with each answer (X-Accel-Expires).
"""

from __future__ import annotations

from dataclasses import dataclass

from commons.site.mirror import PORT, Mirror

CONTROL_PORT = 8001


@dataclass(frozen=True)
class Rooms:
    """Where things are, in nginx's container.

    Attributes:
        control: the address in the network of our own services: there alone an answer can be asked
            for anew, and a file's digest be named.
        ahead: lines before all others.
    """

    cache: str = "/srv/labcommons/data/mirror/cache"
    run: str = "/srv/labcommons/data/mirror/run"
    temporary: str = "/tmp"  # noqa: S108 - of its own container
    listen: str = str(PORT)
    control: str = f"mirror-control:{CONTROL_PORT}"
    ahead: str = ""


def nginx(mirror: Mirror, rooms: Rooms = Rooms()) -> str:
    """The whole file."""
    return f"""\
# Made from the site file by `make up`: what is changed here is lost.
{rooms.ahead}worker_processes 2;
worker_rlimit_nofile 16384;
pid {rooms.temporary}/nginx.pid;
error_log stderr warn;

events {{
    worker_connections 4096;
}}

http {{
    default_type application/octet-stream;
    client_body_temp_path {rooms.temporary}/client_body;
    proxy_temp_path {rooms.temporary}/proxy;
    fastcgi_temp_path {rooms.temporary}/fastcgi;
    uwsgi_temp_path {rooms.temporary}/uwsgi;
    scgi_temp_path {rooms.temporary}/scgi;

    log_format counted escape=json
        '{{"cache":"$upstream_cache_status","bytes":$body_bytes_sent,"status":$status,"uri":"$uri"}}';
    access_log syslog:server=unix:{rooms.run}/log.sock,nohostname counted;
    server_tokens off;
    sendfile on;
    tcp_nodelay on;
    client_max_body_size 1k;
    client_header_timeout 10s;
    client_body_timeout 10s;
    send_timeout 60s;
    keepalive_timeout 75s;
    reset_timedout_connection on;

    # The longest unused goes where it becomes too much, and nothing because of its age: a site that
    # was cut off lives from it.
    proxy_cache_path {rooms.cache} levels=1:2 keys_zone=mirror:64m inactive=3650d use_temp_path=off
        max_size={mirror.size_bytes} min_free={mirror.free_bytes};

    # An index of Python's is there in two forms.
    map "$uri $http_accept" $form {{
        default "";
        "~^/pypi/simple/.*application/vnd\\.pypi\\.simple\\.v1\\+json" json;
        "~^/pypi/simple/" html;
    }}
    # Requests under way of one address.
    limit_conn_zone $binary_remote_addr zone=connections:1m;
    limit_conn_status 429;

    upstream fetcher {{
        server unix:{rooms.run}/fetch.sock;
    }}

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host mirror;
    proxy_set_header Accept $form;
    proxy_set_header Accept-Encoding "";
    # Nothing of who asks goes out, and what is asked for with a login is kept for nobody.
    proxy_set_header Authorization "";
    proxy_set_header Cookie "";
    proxy_set_header Referer "";
    proxy_set_header User-Agent "";
    proxy_set_header X-LabCommons-Sha256 $sha256;
    proxy_ignore_headers Cache-Control Expires Vary X-Accel-Redirect X-Accel-Limit-Rate
        X-Accel-Buffering X-Accel-Charset;
    proxy_connect_timeout 5s;
    proxy_send_timeout 30s;
    proxy_read_timeout 120s;
    proxy_buffer_size 16k;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 128k;
    proxy_ignore_client_abort on;

    proxy_cache mirror;
    # Neither host nor query: an object store's address has a signature there.
    proxy_cache_key "$uri|$form";
    proxy_cache_methods GET HEAD;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 15m;
    proxy_cache_lock_age 15m;
    proxy_cache_revalidate on;
    proxy_cache_use_stale error timeout invalid_header updating http_500 http_502 http_503 http_504
        http_429;
    proxy_cache_bypass $http_authorization $anew;
    proxy_no_cache $http_authorization;
    add_header X-Cache $upstream_cache_status always;

    server {{
        listen {rooms.listen} default_server;
        server_name _;
        set $anew "";
        set $sha256 "";
        limit_conn connections 128;
{_LOCATIONS}
    }}

    server {{
        listen {rooms.control} default_server;
        server_name _;
        set $anew $http_x_labcommons_anew;
        set $sha256 $http_x_labcommons_sha256;
{_LOCATIONS}
    }}
}}
"""


_LOCATIONS = """
        if ($request_method !~ ^(GET|HEAD)$) {
            return 405;
        }

        location / {
            return 404 "Not offered by the mirror.\\n";
        }

        location ~ ^/(conda|pypi)/ {
            # As it was understood here, so that what is kept under a name is what was asked by it.
            rewrite ^ $uri? break;
            proxy_pass http://fetcher;
        }

        location = /health {
            access_log off;
            return 204;
        }"""


def registry(
    mirror: Mirror, folder: str = "/srv/labcommons/data/mirror/images", listen: str = ":5000"
) -> str:
    """docker-registry's: it passes on what another registry has, and keeps it for a week."""
    return _registry(folder, listen, "delete: {enabled: true}") + (
        f'proxy: {{remoteurl: "{mirror.images_url}"}}\n'
    )


def kept(folder: str = "/srv/labcommons/data/mirror/images", listen: str = ":5000") -> str:
    """The same, for while that other registry is away: what is kept, for reading alone."""
    return _registry(folder, listen, "maintenance: {readonly: {enabled: true}}")


def _registry(folder: str, listen: str, storage: str) -> str:
    return f"""\
# Made from the site file by `make up`: what is changed here is lost.
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  {storage}
http: {{addr: "{listen}"}}
"""
