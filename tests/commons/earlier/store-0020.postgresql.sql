CREATE TABLE public.announced_stops (
    username character varying(255) NOT NULL,
    server_name character varying(255) NOT NULL,
    by character varying(255) NOT NULL,
    message character varying(500) NOT NULL,
    at timestamp without time zone NOT NULL,
    stop_at timestamp without time zone NOT NULL
);
CREATE TABLE public.directory_failures (
    key character varying(255) NOT NULL,
    times json NOT NULL,
    last double precision NOT NULL
);
CREATE TABLE public.directory_people (
    name character varying(255) NOT NULL,
    directory_id character varying(64),
    confirmed double precision NOT NULL,
    barred double precision,
    reason character varying(64),
    dismissed boolean NOT NULL,
    roles json NOT NULL
);
CREATE TABLE public.environment_builds (
    id character varying(32) NOT NULL,
    action character varying(16) NOT NULL,
    scope character varying(16) NOT NULL,
    owner character varying(255) NOT NULL,
    name character varying(64) NOT NULL,
    requested_by character varying(255) NOT NULL,
    address character varying(64),
    spec text NOT NULL,
    words text NOT NULL,
    lock text NOT NULL,
    origin json,
    state character varying(16) NOT NULL,
    percent integer NOT NULL,
    message text NOT NULL,
    version character varying(64),
    cancel_asked boolean NOT NULL,
    attempts integer NOT NULL,
    queued_at timestamp without time zone NOT NULL,
    started_at timestamp without time zone,
    ended_at timestamp without time zone,
    said json
);
CREATE TABLE public.environment_versions (
    id integer NOT NULL,
    name character varying(64) NOT NULL,
    version character varying(64) NOT NULL,
    image character varying(255) NOT NULL,
    image_id character varying(80) NOT NULL,
    prefix character varying(255) NOT NULL,
    python character varying(32),
    lock_digest character varying(80) NOT NULL,
    channels json NOT NULL,
    words json NOT NULL,
    main_packages json NOT NULL,
    packages json NOT NULL,
    kernelspecs json NOT NULL,
    created_at timestamp without time zone NOT NULL,
    tag character varying(64),
    revision character varying(64),
    size bigint DEFAULT '0'::bigint NOT NULL,
    cuda character varying(32),
    gpu character varying(16) DEFAULT 'none'::character varying NOT NULL,
    server_size character varying(64),
    access json DEFAULT '{}'::json NOT NULL,
    findings json DEFAULT '[]'::json NOT NULL,
    pinned boolean DEFAULT false NOT NULL,
    deprecated_at timestamp without time zone,
    deprecated_reason character varying(500),
    withdrawn_at timestamp without time zone,
    withdrawn_reason character varying(500),
    removed boolean DEFAULT false NOT NULL
);
CREATE SEQUENCE public.environment_versions_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.environment_versions_id_seq OWNED BY public.environment_versions.id;
CREATE TABLE public.gpu_devices (
    id character varying(96) NOT NULL,
    node character varying(255) NOT NULL,
    model character varying(80) NOT NULL,
    memory bigint NOT NULL,
    simulated boolean NOT NULL,
    present boolean NOT NULL,
    seen_at timestamp without time zone NOT NULL,
    parent character varying(96) DEFAULT ''::character varying NOT NULL,
    sharing character varying(16) DEFAULT 'exclusive'::character varying NOT NULL,
    slots integer DEFAULT 1 NOT NULL,
    weight double precision DEFAULT '1'::double precision NOT NULL,
    health character varying(16) DEFAULT 'ok'::character varying NOT NULL,
    health_reason character varying(255),
    health_since timestamp without time zone,
    drained_at timestamp without time zone,
    drained_by character varying(255),
    drain_reason character varying(255)
);
CREATE TABLE public.gpu_lease_devices (
    lease_id character varying(32) NOT NULL,
    device_id character varying(96) NOT NULL,
    slot integer NOT NULL,
    released_at timestamp without time zone
);
CREATE TABLE public.gpu_leases (
    id character varying(32) NOT NULL,
    username character varying(255) NOT NULL,
    server_name character varying(255) NOT NULL,
    state character varying(16) NOT NULL,
    held_at timestamp without time zone,
    active_at timestamp without time zone,
    ended_at timestamp without time zone,
    ended_reason character varying(64),
    container_id character varying(64),
    account character varying(255) DEFAULT ''::character varying NOT NULL,
    gpus integer DEFAULT 1 NOT NULL,
    gpu_type character varying(80) DEFAULT ''::character varying NOT NULL,
    time_limit integer,
    user_options json DEFAULT '{}'::json NOT NULL,
    requested_at timestamp without time zone NOT NULL,
    opened_at timestamp without time zone,
    ends_at timestamp without time zone,
    borrowed integer DEFAULT 0 NOT NULL,
    exempt_until timestamp without time zone,
    weight double precision DEFAULT '0'::double precision NOT NULL,
    reservation_id character varying(32),
    verdict json,
    stop_reason character varying(64),
    stop_at timestamp without time zone,
    warned_at timestamp without time zone,
    keep_until timestamp without time zone
);
CREATE TABLE public.gpu_nodes (
    name character varying(255) NOT NULL,
    drained_at timestamp without time zone,
    drained_by character varying(255),
    drain_reason character varying(255)
);
CREATE TABLE public.gpu_notices (
    id integer NOT NULL,
    at timestamp without time zone NOT NULL,
    username character varying(255) NOT NULL,
    lease_id character varying(32),
    code character varying(64) NOT NULL,
    data json NOT NULL,
    key character varying(160) NOT NULL,
    seen_at timestamp without time zone,
    mailed_at timestamp without time zone,
    server_name character varying(255)
);
CREATE SEQUENCE public.gpu_notices_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.gpu_notices_id_seq OWNED BY public.gpu_notices.id;
CREATE TABLE public.gpu_quota_changes (
    id integer NOT NULL,
    at timestamp without time zone NOT NULL,
    by character varying(255) NOT NULL,
    subject character varying(255) NOT NULL,
    before json,
    after json
);
CREATE SEQUENCE public.gpu_quota_changes_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.gpu_quota_changes_id_seq OWNED BY public.gpu_quota_changes.id;
CREATE TABLE public.gpu_quotas (
    subject character varying(255) NOT NULL,
    spec json NOT NULL,
    changed_at timestamp without time zone NOT NULL,
    changed_by character varying(255) NOT NULL
);
CREATE TABLE public.gpu_reservations (
    id character varying(32) NOT NULL,
    name character varying(80) NOT NULL,
    subject character varying(255) NOT NULL,
    gpus integer NOT NULL,
    gpu_type character varying(80) NOT NULL,
    devices json NOT NULL,
    starts timestamp without time zone NOT NULL,
    duration integer NOT NULL,
    timezone character varying(64) NOT NULL,
    repeat character varying(16) NOT NULL,
    weekdays json NOT NULL,
    until character varying(10),
    skipped json NOT NULL,
    created_by character varying(255) NOT NULL,
    created_at timestamp without time zone NOT NULL,
    cancelled_at timestamp without time zone
);
CREATE TABLE public.gpu_state (
    id integer NOT NULL,
    version bigint NOT NULL,
    latest timestamp without time zone NOT NULL
);
CREATE SEQUENCE public.gpu_state_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.gpu_state_id_seq OWNED BY public.gpu_state.id;
CREATE TABLE public.gpu_usage (
    lease_id character varying(32) NOT NULL,
    username character varying(255) NOT NULL,
    account character varying(255) NOT NULL,
    weight double precision NOT NULL,
    started_at timestamp without time zone NOT NULL,
    charged_to timestamp without time zone NOT NULL,
    gpu_seconds double precision NOT NULL,
    closed boolean NOT NULL
);
CREATE TABLE public.gpu_usage_sums (
    account character varying(255) NOT NULL,
    username character varying(255) NOT NULL,
    period character varying(64) NOT NULL,
    start double precision NOT NULL,
    gpu_seconds double precision NOT NULL
);
CREATE TABLE public.gpu_watch (
    lease_id character varying(32) NOT NULL,
    at timestamp without time zone NOT NULL,
    use character varying(16) NOT NULL,
    gpu_percent double precision,
    idle_seconds double precision NOT NULL,
    warned_at timestamp without time zone,
    stop_at timestamp without time zone,
    warnings integer NOT NULL,
    kept_seconds double precision NOT NULL,
    prepared_seconds double precision DEFAULT '0'::double precision NOT NULL
);
CREATE TABLE public.kernel_usage (
    id integer NOT NULL,
    day date NOT NULL,
    username character varying(255) NOT NULL,
    kernel character varying(128) NOT NULL,
    source character varying(96) NOT NULL,
    environment character varying(255) NOT NULL,
    version character varying(64) NOT NULL,
    starts integer NOT NULL,
    last_start timestamp without time zone NOT NULL
);
CREATE SEQUENCE public.kernel_usage_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.kernel_usage_id_seq OWNED BY public.kernel_usage.id;
CREATE TABLE public.labcommons_alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.readers (
    username character varying(255) NOT NULL,
    chosen character varying(16) NOT NULL,
    directory character varying(64) NOT NULL,
    timezone character varying(64) NOT NULL
);
CREATE TABLE public.refused_senders (
    username character varying(255) NOT NULL,
    sender character varying(255) NOT NULL
);
CREATE TABLE public.registered_environments (
    id integer NOT NULL,
    source character varying(96) NOT NULL,
    environment character varying(255) NOT NULL,
    version character varying(64) NOT NULL,
    label character varying(128) NOT NULL,
    prefix character varying(1024) NOT NULL,
    python character varying(64),
    state character varying(16) NOT NULL,
    reason text NOT NULL,
    facts json NOT NULL,
    kernels json NOT NULL,
    first_seen timestamp without time zone NOT NULL,
    last_seen timestamp without time zone NOT NULL
);
CREATE SEQUENCE public.registered_environments_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.registered_environments_id_seq OWNED BY public.registered_environments.id;
CREATE TABLE public.registry_sources (
    source character varying(96) NOT NULL,
    device character varying(32) NOT NULL,
    state character varying(16) NOT NULL,
    reason text NOT NULL,
    since timestamp without time zone NOT NULL
);
CREATE TABLE public.scope_environments (
    id integer NOT NULL,
    scope character varying(16) NOT NULL,
    owner character varying(255) NOT NULL,
    name character varying(64) NOT NULL,
    version character varying(64) NOT NULL,
    current boolean NOT NULL,
    built_by character varying(255) NOT NULL,
    created_at timestamp without time zone NOT NULL,
    python character varying(32),
    lock_digest character varying(80) NOT NULL,
    size bigint NOT NULL,
    spec text NOT NULL,
    words text NOT NULL,
    lock text NOT NULL,
    exports json NOT NULL,
    packages json NOT NULL,
    kernels json NOT NULL,
    findings json NOT NULL,
    origin json,
    tag character varying(64),
    pinned boolean DEFAULT false NOT NULL,
    deprecated_at timestamp without time zone,
    deprecated_reason character varying(500),
    withdrawn_at timestamp without time zone,
    withdrawn_reason character varying(500)
);
CREATE TABLE public.sent_notebooks (
    id integer NOT NULL,
    at timestamp without time zone NOT NULL,
    sender character varying(255) NOT NULL,
    username character varying(255) NOT NULL,
    name character varying(200) NOT NULL,
    environment character varying(200) NOT NULL,
    size integer NOT NULL,
    packed bytea NOT NULL
);
CREATE SEQUENCE public.sent_notebooks_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.sent_notebooks_id_seq OWNED BY public.sent_notebooks.id;
CREATE TABLE public.server_ends (
    id integer NOT NULL,
    key character varying(128) NOT NULL,
    at timestamp without time zone NOT NULL,
    username character varying(255) NOT NULL,
    server_name character varying(255) NOT NULL,
    lease_id character varying(32),
    cause character varying(32) NOT NULL,
    by character varying(255) NOT NULL,
    message character varying(1000) NOT NULL,
    data json NOT NULL
);
CREATE SEQUENCE public.server_ends_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.server_ends_id_seq OWNED BY public.server_ends.id;
CREATE TABLE public.server_starts (
    username character varying(255) NOT NULL,
    server_name character varying(255) NOT NULL,
    user_options json NOT NULL,
    asked_at timestamp without time zone NOT NULL,
    tries integer NOT NULL
);
CREATE TABLE public.server_watch (
    key character varying(128) NOT NULL,
    username character varying(255) NOT NULL,
    server_name character varying(255) NOT NULL,
    at double precision NOT NULL,
    use character varying(16) NOT NULL,
    idle_seconds double precision NOT NULL,
    warned_at double precision,
    stop_at double precision,
    warnings integer NOT NULL,
    old_at double precision,
    keep_until double precision,
    kept_seconds double precision NOT NULL,
    keep_for double precision NOT NULL,
    keep_at_most double precision NOT NULL,
    stopping boolean NOT NULL
);
CREATE SEQUENCE public.tier_environments_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.tier_environments_id_seq OWNED BY public.scope_environments.id;
CREATE TABLE public.warm_servers (
    warm_id character varying(32) NOT NULL,
    username character varying(255) NOT NULL,
    state character varying(16) NOT NULL,
    tries integer NOT NULL,
    at timestamp without time zone NOT NULL,
    container character varying(128) NOT NULL,
    reason json,
    chosen json
);
CREATE TABLE public.warm_starts (
    id character varying(32) NOT NULL,
    name character varying(80) NOT NULL,
    subject character varying(255) NOT NULL,
    people json NOT NULL,
    user_options json NOT NULL,
    starts_at timestamp without time zone NOT NULL,
    hold_until timestamp without time zone NOT NULL,
    created_by character varying(255) NOT NULL,
    created_at timestamp without time zone NOT NULL,
    begun_at timestamp without time zone,
    cancelled_at timestamp without time zone
);
ALTER TABLE ONLY public.environment_versions ALTER COLUMN id SET DEFAULT nextval('public.environment_versions_id_seq'::regclass);
ALTER TABLE ONLY public.gpu_notices ALTER COLUMN id SET DEFAULT nextval('public.gpu_notices_id_seq'::regclass);
ALTER TABLE ONLY public.gpu_quota_changes ALTER COLUMN id SET DEFAULT nextval('public.gpu_quota_changes_id_seq'::regclass);
ALTER TABLE ONLY public.gpu_state ALTER COLUMN id SET DEFAULT nextval('public.gpu_state_id_seq'::regclass);
ALTER TABLE ONLY public.kernel_usage ALTER COLUMN id SET DEFAULT nextval('public.kernel_usage_id_seq'::regclass);
ALTER TABLE ONLY public.registered_environments ALTER COLUMN id SET DEFAULT nextval('public.registered_environments_id_seq'::regclass);
ALTER TABLE ONLY public.scope_environments ALTER COLUMN id SET DEFAULT nextval('public.tier_environments_id_seq'::regclass);
ALTER TABLE ONLY public.sent_notebooks ALTER COLUMN id SET DEFAULT nextval('public.sent_notebooks_id_seq'::regclass);
ALTER TABLE ONLY public.server_ends ALTER COLUMN id SET DEFAULT nextval('public.server_ends_id_seq'::regclass);
INSERT INTO public.announced_stops VALUES ('bob', '', 'carol', 'a new kernel; ''save'' it', '2026-11-20 12:00:00', '2026-11-20 12:30:00');
INSERT INTO public.directory_failures VALUES ('name:bob', '[1.5, 2.25]', 2.25);
INSERT INTO public.directory_people VALUES ('alice', '6f1c', 1795176000, NULL, NULL, false, '{"teams": {"vision": "lead"}}');
INSERT INTO public.environment_builds VALUES ('b1', 'create', 'team', 'vision', 'analyse', 'bob', NULL, 'name: analyse
dependencies: [python=3.13, pip: [numpy]]
', '', '', 'null', 'failed', 0, 'no such package', NULL, false, 0, '2026-11-20 12:00:00', NULL, '2026-11-20 12:00:00', '{"text": "no %(x)s", "values": {"x": 1}}');
INSERT INTO public.environment_versions VALUES (1, 'py313-data', '2026.11.20-1', 'labcommons/env-py313-data:1', 'sha256:1111111111111111111111111111111111111111111111111111111111111111', '/opt/conda/envs/py313-data', '3.13.1', 'sha256:2222222222222222222222222222222222222222222222222222222222222222', '["conda-forge"]', '{"title": {"en": "Data", "zh_CN": "\u6570\u636e"}}', '[{"name": "numpy", "version": "2.3"}]', '[]', '{"python3": {"argv": ["python"]}}', '2026-11-20 12:00:00', '1.2.3', NULL, 6442450944, NULL, 'none', NULL, '{"teams": ["vision"], "courses": []}', '[]', true, '2026-11-20 12:00:00', 'old', NULL, NULL, false);
INSERT INTO public.gpu_devices VALUES ('GPU-51300000-0000-4000-8000-000000000000', 'local', 'A100', 85899345920, true, true, '2026-11-15 12:00:00', '', 'exclusive', 1, 1, 'ok', NULL, '2026-11-15 12:00:00', NULL, NULL, NULL);
INSERT INTO public.gpu_devices VALUES ('GPU-51300000-0000-4000-8000-000000000001', 'local', 'A100', 85899345920, true, true, '2026-11-15 12:00:00', '', 'exclusive', 1, 1, 'ok', NULL, '2026-11-15 12:00:00', NULL, NULL, NULL);
INSERT INTO public.gpu_devices VALUES ('GPU-51300000-0000-4000-8000-000000000002', 'local', 'RTX 4090', 25769803776, true, true, '2026-11-15 12:00:00', '', 'exclusive', 1, 1, 'ok', NULL, '2026-11-15 12:00:00', NULL, NULL, NULL);
INSERT INTO public.gpu_lease_devices VALUES ('000000000001000179d2c02e03de1547', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-16 11:30:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000020001e3d78797901ba83e', 'GPU-51300000-0000-4000-8000-000000000001', 0, '2026-11-16 15:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000030001a698878d2b02650d', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-16 11:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('000000000006000168f7ab376f1af0ab', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-16 13:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('000000000008000105cd86551a330b4c', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-16 17:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000090001332c4bee7eee249d', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-16 14:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000000d0001b287ec4964eb370e', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-17 11:30:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000000e0001597b71664ba66441', 'GPU-51300000-0000-4000-8000-000000000001', 0, '2026-11-17 15:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000000f0001b9c79177dd01d757', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-17 11:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000120001d346b36d99eb3a75', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-17 13:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000140001128fb3715bcfd368', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-17 17:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000150001ca58ee91d3f4bfbf', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-17 14:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000001900016f05a5d5cb1659b5', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-18 11:30:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000001a0001d4f8dfb66607e64b', 'GPU-51300000-0000-4000-8000-000000000001', 0, '2026-11-18 15:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000001b0001bffc1ab019dff170', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-18 11:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000001e0001c3e756b92ffed13e', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-18 13:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002000019c539b4c63367674', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-18 17:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002100018d26ad7de6e6fa91', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-18 14:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('0000000000250001ba3e16ab53cb7d08', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-19 11:30:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002600015e2b90725d42ec4d', 'GPU-51300000-0000-4000-8000-000000000001', 0, '2026-11-19 15:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002700018c0f2c3e28c927ea', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-19 11:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002a00019eaa3e21498b863a', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-19 13:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002c0001ea16b554b2dc9be8', 'GPU-51300000-0000-4000-8000-000000000000', 0, '2026-11-19 17:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000002d0001328a8fa78a943d57', 'GPU-51300000-0000-4000-8000-000000000002', 0, '2026-11-19 14:00:00');
INSERT INTO public.gpu_lease_devices VALUES ('00000000003400030cef79e629728c3a', 'GPU-51300000-0000-4000-8000-000000000002', 0, NULL);
INSERT INTO public.gpu_lease_devices VALUES ('000000000034000206f811a9c750bacc', 'GPU-51300000-0000-4000-8000-000000000000', 0, NULL);
INSERT INTO public.gpu_lease_devices VALUES ('0000000000340001eafa2e096b85511b', 'GPU-51300000-0000-4000-8000-000000000001', 0, NULL);
INSERT INTO public.gpu_leases VALUES ('000000000001000179d2c02e03de1547', 'alice', '', 'ended', '2026-11-16 08:00:00', '2026-11-16 08:00:00', '2026-11-16 11:30:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 12600, '{}', '2026-11-16 08:00:00', NULL, '2026-11-16 11:30:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000020001e3d78797901ba83e', 'bob', '', 'ended', '2026-11-16 09:00:00', '2026-11-16 09:00:00', '2026-11-16 15:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 21600, '{}', '2026-11-16 09:00:00', NULL, '2026-11-16 15:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000030001a698878d2b02650d', 's01', '', 'ended', '2026-11-16 10:00:00', '2026-11-16 10:00:00', '2026-11-16 11:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 3600, '{}', '2026-11-16 10:00:00', NULL, '2026-11-16 11:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('000000000006000168f7ab376f1af0ab', 's02', '', 'ended', '2026-11-16 11:30:00', '2026-11-16 11:30:00', '2026-11-16 13:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 5400, '{}', '2026-11-16 11:30:00', NULL, '2026-11-16 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('000000000008000105cd86551a330b4c', 'alice', '', 'ended', '2026-11-16 13:00:00', '2026-11-16 13:00:00', '2026-11-16 17:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 14400, '{}', '2026-11-16 13:00:00', NULL, '2026-11-16 17:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000090001332c4bee7eee249d', 's03', '', 'ended', '2026-11-16 13:30:00', '2026-11-16 13:30:00', '2026-11-16 14:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 1800, '{}', '2026-11-16 13:30:00', NULL, '2026-11-16 14:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000000d0001b287ec4964eb370e', 'alice', '', 'ended', '2026-11-17 08:00:00', '2026-11-17 08:00:00', '2026-11-17 11:30:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 12600, '{}', '2026-11-17 08:00:00', NULL, '2026-11-17 11:30:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000000e0001597b71664ba66441', 'bob', '', 'ended', '2026-11-17 09:00:00', '2026-11-17 09:00:00', '2026-11-17 15:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 21600, '{}', '2026-11-17 09:00:00', NULL, '2026-11-17 15:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000000f0001b9c79177dd01d757', 's01', '', 'ended', '2026-11-17 10:00:00', '2026-11-17 10:00:00', '2026-11-17 11:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 3600, '{}', '2026-11-17 10:00:00', NULL, '2026-11-17 11:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000120001d346b36d99eb3a75', 's02', '', 'ended', '2026-11-17 11:30:00', '2026-11-17 11:30:00', '2026-11-17 13:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 5400, '{}', '2026-11-17 11:30:00', NULL, '2026-11-17 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000140001128fb3715bcfd368', 'alice', '', 'ended', '2026-11-17 13:00:00', '2026-11-17 13:00:00', '2026-11-17 17:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 14400, '{}', '2026-11-17 13:00:00', NULL, '2026-11-17 17:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000150001ca58ee91d3f4bfbf', 's03', '', 'ended', '2026-11-17 13:30:00', '2026-11-17 13:30:00', '2026-11-17 14:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 1800, '{}', '2026-11-17 13:30:00', NULL, '2026-11-17 14:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000001900016f05a5d5cb1659b5', 'alice', '', 'ended', '2026-11-18 08:00:00', '2026-11-18 08:00:00', '2026-11-18 11:30:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 12600, '{}', '2026-11-18 08:00:00', NULL, '2026-11-18 11:30:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000001a0001d4f8dfb66607e64b', 'bob', '', 'ended', '2026-11-18 09:00:00', '2026-11-18 09:00:00', '2026-11-18 15:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 21600, '{}', '2026-11-18 09:00:00', NULL, '2026-11-18 15:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000001b0001bffc1ab019dff170', 's01', '', 'ended', '2026-11-18 10:00:00', '2026-11-18 10:00:00', '2026-11-18 11:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 3600, '{}', '2026-11-18 10:00:00', NULL, '2026-11-18 11:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000001e0001c3e756b92ffed13e', 's02', '', 'ended', '2026-11-18 11:30:00', '2026-11-18 11:30:00', '2026-11-18 13:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 5400, '{}', '2026-11-18 11:30:00', NULL, '2026-11-18 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002000019c539b4c63367674', 'alice', '', 'ended', '2026-11-18 13:00:00', '2026-11-18 13:00:00', '2026-11-18 17:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 14400, '{}', '2026-11-18 13:00:00', NULL, '2026-11-18 17:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002100018d26ad7de6e6fa91', 's03', '', 'ended', '2026-11-18 13:30:00', '2026-11-18 13:30:00', '2026-11-18 14:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 1800, '{}', '2026-11-18 13:30:00', NULL, '2026-11-18 14:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000250001ba3e16ab53cb7d08', 'alice', '', 'ended', '2026-11-19 08:00:00', '2026-11-19 08:00:00', '2026-11-19 11:30:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 12600, '{}', '2026-11-19 08:00:00', NULL, '2026-11-19 11:30:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002600015e2b90725d42ec4d', 'bob', '', 'ended', '2026-11-19 09:00:00', '2026-11-19 09:00:00', '2026-11-19 15:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 21600, '{}', '2026-11-19 09:00:00', NULL, '2026-11-19 15:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002700018c0f2c3e28c927ea', 's01', '', 'ended', '2026-11-19 10:00:00', '2026-11-19 10:00:00', '2026-11-19 11:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 3600, '{}', '2026-11-19 10:00:00', NULL, '2026-11-19 11:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002a00019eaa3e21498b863a', 's02', '', 'ended', '2026-11-19 11:30:00', '2026-11-19 11:30:00', '2026-11-19 13:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 5400, '{}', '2026-11-19 11:30:00', NULL, '2026-11-19 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002c0001ea16b554b2dc9be8', 'alice', '', 'ended', '2026-11-19 13:00:00', '2026-11-19 13:00:00', '2026-11-19 17:00:00', 'stopped', 'demo', 'group:vision', 1, 'A100', 14400, '{}', '2026-11-19 13:00:00', NULL, '2026-11-19 17:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000002d0001328a8fa78a943d57', 's03', '', 'ended', '2026-11-19 13:30:00', '2026-11-19 13:30:00', '2026-11-19 14:00:00', 'stopped', 'demo', 'course:ml101', 1, 'RTX 4090', 1800, '{}', '2026-11-19 13:30:00', NULL, '2026-11-19 14:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('0000000000340001eafa2e096b85511b', 'alice', '', 'active', '2026-11-20 12:00:00', '2026-11-20 12:00:00', NULL, NULL, 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'group:vision', 1, 'A100', 3600, '{}', '2026-11-20 12:00:00', NULL, '2026-11-20 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('000000000034000206f811a9c750bacc', 'bob', 'second', 'held', '2026-11-20 12:00:00', NULL, NULL, NULL, NULL, 'group:vision', 1, '', 7200, '{}', '2026-11-20 12:00:00', NULL, '2026-11-20 14:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('00000000003400030cef79e629728c3a', 's01', '', 'held', '2026-11-20 12:00:00', NULL, NULL, NULL, NULL, 'course:ml101', 1, '', 3600, '{}', '2026-11-20 12:00:00', NULL, '2026-11-20 13:00:00', 0, NULL, 1, NULL, 'null', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_leases VALUES ('000000000034000499c1f708e27a8b86', 's02', '', 'queued', NULL, NULL, NULL, NULL, NULL, 'course:ml101', 1, '', 1800, '{}', '2026-11-20 12:00:00', NULL, NULL, 0, NULL, 0, NULL, '{"position": 1, "expected_start": 1795179600.0, "reasons": [{"code": "cohort_full", "data": {"cohort": "lab", "limit": 3, "held": 3, "gpus": 1, "until": 1795179600.0}}, {"code": "gpus_busy", "data": {"gpus": 1, "free": 0, "total": 3, "type": ""}}]}', NULL, NULL, NULL, NULL);
INSERT INTO public.gpu_nodes VALUES ('local', '2026-11-20 12:00:00', 'carol', 'a fan''s');
INSERT INTO public.gpu_notices VALUES (1, '2026-11-20 12:00:00', 'alice', '0000000000340001eafa2e096b85511b', 'granted', '{}', 'granted:0000000000340001eafa2e096b85511b', NULL, NULL, NULL);
INSERT INTO public.gpu_quota_changes VALUES (1, '2026-11-28 00:48:51.667336', 'demo', 'settings', 'null', '{"half_life": "7d", "strategy": "backfill", "hold_time": "10m", "warn_before": "15m"}');
INSERT INTO public.gpu_quota_changes VALUES (2, '2026-11-28 00:48:51.667336', 'demo', 'default', 'null', '{"max_gpus": 1, "max_queued": 2, "time_limit": "8h", "default_time_limit": "2h", "idle": {"after": "2h", "gpu_percent": 5.0, "grace": "10m"}}');
INSERT INTO public.gpu_quota_changes VALUES (3, '2026-11-28 00:48:51.667336', 'demo', 'group:vision', 'null', '{"max_gpus": 2, "grp_budget": {"gpu_hours": 400.0, "window": "month"}, "nominal": 2, "borrowing_limit": 1, "cohort": "lab", "preempt_exempt": "10m"}');
INSERT INTO public.gpu_quota_changes VALUES (4, '2026-11-28 00:48:51.667336', 'demo', 'course:ml101', 'null', '{"max_gpus": 1, "time_limit": "2h", "default_time_limit": "1h", "budget": {"gpu_hours": 20.0, "window": "total"}, "idle": {"after": "30m"}, "nominal": 1, "borrowing_limit": 2, "cohort": "lab", "preempt_exempt": "10m"}');
INSERT INTO public.gpu_quotas VALUES ('settings', '{"half_life": "7d", "strategy": "backfill", "hold_time": "10m", "warn_before": "15m"}', '2026-11-28 00:48:51.667336', 'demo');
INSERT INTO public.gpu_quotas VALUES ('default', '{"max_gpus": 1, "max_queued": 2, "time_limit": "8h", "default_time_limit": "2h", "idle": {"after": "2h", "gpu_percent": 5.0, "grace": "10m"}}', '2026-11-28 00:48:51.667336', 'demo');
INSERT INTO public.gpu_quotas VALUES ('group:vision', '{"max_gpus": 2, "grp_budget": {"gpu_hours": 400.0, "window": "month"}, "nominal": 2, "borrowing_limit": 1, "cohort": "lab", "preempt_exempt": "10m"}', '2026-11-28 00:48:51.667336', 'demo');
INSERT INTO public.gpu_quotas VALUES ('course:ml101', '{"max_gpus": 1, "time_limit": "2h", "default_time_limit": "1h", "budget": {"gpu_hours": 20.0, "window": "total"}, "idle": {"after": "30m"}, "nominal": 1, "borrowing_limit": 2, "cohort": "lab", "preempt_exempt": "10m"}', '2026-11-28 00:48:51.667336', 'demo');
INSERT INTO public.gpu_reservations VALUES ('a6490d9d0d56', 'Machine learning, lab', 'course:ml101', 1, 'A100', '[]', '2026-11-21 10:00:00', 5400, 'UTC', 'weekly', '[0, 2, 4]', NULL, '[]', 'demo', '2026-11-28 00:48:51.825386', NULL);
INSERT INTO public.gpu_state VALUES (1, 53, '2026-11-20 12:00:00');
INSERT INTO public.gpu_usage VALUES ('000000000001000179d2c02e03de1547', 'alice', 'group:vision', 1, '2026-11-16 08:00:00', '2026-11-16 11:30:00', 12600, true);
INSERT INTO public.gpu_usage VALUES ('0000000000020001e3d78797901ba83e', 'bob', 'group:vision', 1, '2026-11-16 09:00:00', '2026-11-16 15:00:00', 21600, true);
INSERT INTO public.gpu_usage VALUES ('0000000000030001a698878d2b02650d', 's01', 'course:ml101', 1, '2026-11-16 10:00:00', '2026-11-16 11:00:00', 3600, true);
INSERT INTO public.gpu_usage VALUES ('000000000006000168f7ab376f1af0ab', 's02', 'course:ml101', 1, '2026-11-16 11:30:00', '2026-11-16 13:00:00', 5400, true);
INSERT INTO public.gpu_usage VALUES ('000000000008000105cd86551a330b4c', 'alice', 'group:vision', 1, '2026-11-16 13:00:00', '2026-11-16 17:00:00', 14400, true);
INSERT INTO public.gpu_usage VALUES ('0000000000090001332c4bee7eee249d', 's03', 'course:ml101', 1, '2026-11-16 13:30:00', '2026-11-16 14:00:00', 1800, true);
INSERT INTO public.gpu_usage VALUES ('00000000000d0001b287ec4964eb370e', 'alice', 'group:vision', 1, '2026-11-17 08:00:00', '2026-11-17 11:30:00', 12600, true);
INSERT INTO public.gpu_usage VALUES ('00000000000e0001597b71664ba66441', 'bob', 'group:vision', 1, '2026-11-17 09:00:00', '2026-11-17 15:00:00', 21600, true);
INSERT INTO public.gpu_usage VALUES ('00000000000f0001b9c79177dd01d757', 's01', 'course:ml101', 1, '2026-11-17 10:00:00', '2026-11-17 11:00:00', 3600, true);
INSERT INTO public.gpu_usage VALUES ('0000000000120001d346b36d99eb3a75', 's02', 'course:ml101', 1, '2026-11-17 11:30:00', '2026-11-17 13:00:00', 5400, true);
INSERT INTO public.gpu_usage VALUES ('0000000000140001128fb3715bcfd368', 'alice', 'group:vision', 1, '2026-11-17 13:00:00', '2026-11-17 17:00:00', 14400, true);
INSERT INTO public.gpu_usage VALUES ('0000000000150001ca58ee91d3f4bfbf', 's03', 'course:ml101', 1, '2026-11-17 13:30:00', '2026-11-17 14:00:00', 1800, true);
INSERT INTO public.gpu_usage VALUES ('00000000001900016f05a5d5cb1659b5', 'alice', 'group:vision', 1, '2026-11-18 08:00:00', '2026-11-18 11:30:00', 12600, true);
INSERT INTO public.gpu_usage VALUES ('00000000001a0001d4f8dfb66607e64b', 'bob', 'group:vision', 1, '2026-11-18 09:00:00', '2026-11-18 15:00:00', 21600, true);
INSERT INTO public.gpu_usage VALUES ('00000000001b0001bffc1ab019dff170', 's01', 'course:ml101', 1, '2026-11-18 10:00:00', '2026-11-18 11:00:00', 3600, true);
INSERT INTO public.gpu_usage VALUES ('00000000001e0001c3e756b92ffed13e', 's02', 'course:ml101', 1, '2026-11-18 11:30:00', '2026-11-18 13:00:00', 5400, true);
INSERT INTO public.gpu_usage VALUES ('00000000002000019c539b4c63367674', 'alice', 'group:vision', 1, '2026-11-18 13:00:00', '2026-11-18 17:00:00', 14400, true);
INSERT INTO public.gpu_usage VALUES ('00000000002100018d26ad7de6e6fa91', 's03', 'course:ml101', 1, '2026-11-18 13:30:00', '2026-11-18 14:00:00', 1800, true);
INSERT INTO public.gpu_usage VALUES ('0000000000250001ba3e16ab53cb7d08', 'alice', 'group:vision', 1, '2026-11-19 08:00:00', '2026-11-19 11:30:00', 12600, true);
INSERT INTO public.gpu_usage VALUES ('00000000002600015e2b90725d42ec4d', 'bob', 'group:vision', 1, '2026-11-19 09:00:00', '2026-11-19 15:00:00', 21600, true);
INSERT INTO public.gpu_usage VALUES ('00000000002700018c0f2c3e28c927ea', 's01', 'course:ml101', 1, '2026-11-19 10:00:00', '2026-11-19 11:00:00', 3600, true);
INSERT INTO public.gpu_usage VALUES ('00000000002a00019eaa3e21498b863a', 's02', 'course:ml101', 1, '2026-11-19 11:30:00', '2026-11-19 13:00:00', 5400, true);
INSERT INTO public.gpu_usage VALUES ('00000000002c0001ea16b554b2dc9be8', 'alice', 'group:vision', 1, '2026-11-19 13:00:00', '2026-11-19 17:00:00', 14400, true);
INSERT INTO public.gpu_usage VALUES ('00000000002d0001328a8fa78a943d57', 's03', 'course:ml101', 1, '2026-11-19 13:30:00', '2026-11-19 14:00:00', 1800, true);
INSERT INTO public.gpu_usage VALUES ('00000000003400030cef79e629728c3a', 's01', 'course:ml101', 1, '2026-11-20 12:00:00', '2026-11-20 12:00:00', 0, false);
INSERT INTO public.gpu_usage VALUES ('000000000034000206f811a9c750bacc', 'bob', 'group:vision', 1, '2026-11-20 12:00:00', '2026-11-20 12:00:00', 0, false);
INSERT INTO public.gpu_usage VALUES ('0000000000340001eafa2e096b85511b', 'alice', 'group:vision', 1, '2026-11-20 12:00:00', '2026-11-20 12:00:00', 0, false);
INSERT INTO public.gpu_usage_sums VALUES ('', '', 'decay:604800', 1794816000, 0);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's01', 'decay:604800', 1795086000, 12462.874376349531);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'alice', 'decay:604800', 1795107600, 91966.8105078321);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's02', 'decay:604800', 1795093200, 18675.055460023956);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's03', 'decay:604800', 1795096800, 6237.864720296853);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'bob', 'decay:604800', 1795100400, 74011.74367848104);
INSERT INTO public.gpu_usage_sums VALUES ('', '', 'total', 0, 0);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's01', 'total', 0, 14400);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'alice', 'total', 0, 108000);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's02', 'total', 0, 21600);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's03', 'total', 0, 7200);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'bob', 'total', 0, 86400);
INSERT INTO public.gpu_usage_sums VALUES ('', '', 'month', 1793491200, 0);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's01', 'month', 1793491200, 14400);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'alice', 'month', 1793491200, 108000);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's02', 'month', 1793491200, 21600);
INSERT INTO public.gpu_usage_sums VALUES ('course:ml101', 's03', 'month', 1793491200, 7200);
INSERT INTO public.gpu_usage_sums VALUES ('group:vision', 'bob', 'month', 1793491200, 86400);
INSERT INTO public.gpu_watch VALUES ('0000000000340001eafa2e096b85511b', '2026-11-20 12:00:00', 'idle', NULL, 61.5, NULL, NULL, 0, 0, 0);
INSERT INTO public.kernel_usage VALUES (1, '2026-11-20', 'alice', 'conda-image-py313-data-python3', 'image', 'py313-data', '1', 7, '2026-11-20 12:00:00');
INSERT INTO public.labcommons_alembic_version VALUES ('0020');
INSERT INTO public.readers VALUES ('李雷', 'zh_CN', '', 'Asia/Shanghai');
INSERT INTO public.refused_senders VALUES ('alice', 's02');
INSERT INTO public.registered_environments VALUES (1, 'team-vision', 'analyse', 'live', 'vision', '/opt/labcommons/teams/vision/envs/analyse', NULL, 'ok', '', '{"title": {"en": "Data", "zh_CN": "\u6570\u636e"}}', '[{"name": "k", "display_name": "K", "language": "R"}]', '2026-11-20 12:00:00', '2026-11-20 12:00:00');
INSERT INTO public.registry_sources VALUES ('shared', '8:1', 'ok', '', '2026-11-20 12:00:00');
INSERT INTO public.scope_environments VALUES (1, 'personal', 'alice', 'mine', '1', true, 'alice', '2026-11-20 12:00:00', NULL, '', 0, 'name: analyse
dependencies: [python=3.13, pip: [numpy]]
', '', 'lock', '{"pixi": "x"}', '[]', '{}', '[{"rule": "old"}]', 'null', NULL, false, NULL, NULL, '2026-11-20 12:00:00', 'wrong');
INSERT INTO public.sent_notebooks VALUES (1, '2026-11-20 12:00:00', 'bob', 'alice', 'Übung.ipynb', 'py313-data:2026.11.20-1', 12, '\x00ff78');
INSERT INTO public.server_ends VALUES (1, 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '2026-11-28 00:48:51.876029', 'bob', '', NULL, 'out_of_memory', '', '', '{"limit_bytes": 1099511627776, "size": "gro\u00df"}');
INSERT INTO public.server_starts VALUES ('s03', '', '{"environment": "py313-data"}', '2026-11-20 12:00:00', 1);
INSERT INTO public.server_watch VALUES ('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', 's01', '', 1795176000, 'idle', 0, 1.5, NULL, 0, NULL, NULL, 0, 3600, 7200, true);
INSERT INTO public.warm_servers VALUES ('w1', 's04', 'ready', 1, '2026-11-20 12:00:00', '', 'null', 'null');
INSERT INTO public.warm_starts VALUES ('w1', 'lesson', 'course:ml101', '[]', '{"size": "small"}', '2026-11-20 12:00:00', '2026-11-20 12:00:00', 'dan', '2026-11-20 12:00:00', NULL, NULL);
SELECT pg_catalog.setval('public.environment_versions_id_seq', 1, true);
SELECT pg_catalog.setval('public.gpu_notices_id_seq', 1, true);
SELECT pg_catalog.setval('public.gpu_quota_changes_id_seq', 4, true);
SELECT pg_catalog.setval('public.gpu_state_id_seq', 1, true);
SELECT pg_catalog.setval('public.kernel_usage_id_seq', 1, true);
SELECT pg_catalog.setval('public.registered_environments_id_seq', 1, true);
SELECT pg_catalog.setval('public.sent_notebooks_id_seq', 1, true);
SELECT pg_catalog.setval('public.server_ends_id_seq', 1, true);
SELECT pg_catalog.setval('public.tier_environments_id_seq', 1, true);
ALTER TABLE ONLY public.announced_stops
    ADD CONSTRAINT announced_stops_pkey PRIMARY KEY (username, server_name);
ALTER TABLE ONLY public.directory_failures
    ADD CONSTRAINT directory_failures_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.directory_people
    ADD CONSTRAINT directory_people_directory_id_key UNIQUE (directory_id);
ALTER TABLE ONLY public.directory_people
    ADD CONSTRAINT directory_people_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.environment_builds
    ADD CONSTRAINT environment_builds_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.environment_versions
    ADD CONSTRAINT environment_versions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_devices
    ADD CONSTRAINT gpu_devices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_lease_devices
    ADD CONSTRAINT gpu_lease_devices_pkey PRIMARY KEY (lease_id, device_id, slot);
ALTER TABLE ONLY public.gpu_leases
    ADD CONSTRAINT gpu_leases_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_nodes
    ADD CONSTRAINT gpu_nodes_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.gpu_notices
    ADD CONSTRAINT gpu_notices_key_key UNIQUE (key);
ALTER TABLE ONLY public.gpu_notices
    ADD CONSTRAINT gpu_notices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_quota_changes
    ADD CONSTRAINT gpu_quota_changes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_quotas
    ADD CONSTRAINT gpu_quotas_pkey PRIMARY KEY (subject);
ALTER TABLE ONLY public.gpu_reservations
    ADD CONSTRAINT gpu_reservations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_state
    ADD CONSTRAINT gpu_state_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.gpu_usage
    ADD CONSTRAINT gpu_usage_pkey PRIMARY KEY (lease_id);
ALTER TABLE ONLY public.gpu_usage_sums
    ADD CONSTRAINT gpu_usage_sums_pkey PRIMARY KEY (account, username, period);
ALTER TABLE ONLY public.gpu_watch
    ADD CONSTRAINT gpu_watch_pkey PRIMARY KEY (lease_id);
ALTER TABLE ONLY public.kernel_usage
    ADD CONSTRAINT kernel_usage_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.labcommons_alembic_version
    ADD CONSTRAINT labcommons_alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.readers
    ADD CONSTRAINT readers_pkey PRIMARY KEY (username);
ALTER TABLE ONLY public.refused_senders
    ADD CONSTRAINT refused_senders_pkey PRIMARY KEY (username, sender);
ALTER TABLE ONLY public.registered_environments
    ADD CONSTRAINT registered_environments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.registry_sources
    ADD CONSTRAINT registry_sources_pkey PRIMARY KEY (source);
ALTER TABLE ONLY public.sent_notebooks
    ADD CONSTRAINT sent_notebooks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.server_ends
    ADD CONSTRAINT server_ends_key_key UNIQUE (key);
ALTER TABLE ONLY public.server_ends
    ADD CONSTRAINT server_ends_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.server_starts
    ADD CONSTRAINT server_starts_pkey PRIMARY KEY (username, server_name);
ALTER TABLE ONLY public.server_watch
    ADD CONSTRAINT server_watch_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.scope_environments
    ADD CONSTRAINT tier_environments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.warm_servers
    ADD CONSTRAINT warm_servers_pkey PRIMARY KEY (warm_id, username);
ALTER TABLE ONLY public.warm_starts
    ADD CONSTRAINT warm_starts_pkey PRIMARY KEY (id);
CREATE INDEX ix_environment_builds_requested_by ON public.environment_builds USING btree (requested_by);
CREATE INDEX ix_environment_builds_state ON public.environment_builds USING btree (state);
CREATE INDEX ix_gpu_leases_account ON public.gpu_leases USING btree (account);
CREATE INDEX ix_gpu_leases_ended_at ON public.gpu_leases USING btree (ended_at);
CREATE INDEX ix_gpu_leases_state ON public.gpu_leases USING btree (state);
CREATE INDEX ix_gpu_leases_username ON public.gpu_leases USING btree (username);
CREATE INDEX ix_gpu_notices_username ON public.gpu_notices USING btree (username);
CREATE INDEX ix_gpu_quota_changes_subject ON public.gpu_quota_changes USING btree (subject);
CREATE INDEX ix_gpu_usage_account ON public.gpu_usage USING btree (account);
CREATE INDEX ix_gpu_usage_charged_to ON public.gpu_usage USING btree (charged_to);
CREATE INDEX ix_gpu_usage_username ON public.gpu_usage USING btree (username);
CREATE INDEX ix_kernel_usage_day ON public.kernel_usage USING btree (day);
CREATE INDEX ix_sent_notebooks_sender ON public.sent_notebooks USING btree (sender, at);
CREATE INDEX ix_sent_notebooks_username ON public.sent_notebooks USING btree (username);
CREATE INDEX ix_server_ends_at ON public.server_ends USING btree (at);
CREATE INDEX ix_server_ends_server ON public.server_ends USING btree (username, server_name);
CREATE INDEX ix_server_watch_username ON public.server_watch USING btree (username);
CREATE INDEX ix_warm_servers_state ON public.warm_servers USING btree (state);
CREATE UNIQUE INDEX uq_environment_builds_running ON public.environment_builds USING btree (scope, owner, name) WHERE ((state)::text = 'running'::text);
CREATE UNIQUE INDEX uq_environment_versions ON public.environment_versions USING btree (name, version);
CREATE UNIQUE INDEX uq_gpu_lease_devices_live ON public.gpu_lease_devices USING btree (device_id, slot) WHERE (released_at IS NULL);
CREATE UNIQUE INDEX uq_gpu_leases_live ON public.gpu_leases USING btree (username, server_name) WHERE ((state)::text <> 'ended'::text);
CREATE UNIQUE INDEX uq_kernel_usage ON public.kernel_usage USING btree (day, username, kernel, source, environment, version);
CREATE UNIQUE INDEX uq_registered_environments ON public.registered_environments USING btree (source, environment, version);
CREATE UNIQUE INDEX uq_scope_environments ON public.scope_environments USING btree (scope, owner, name, version);
ALTER TABLE ONLY public.gpu_lease_devices
    ADD CONSTRAINT gpu_lease_devices_device_id_fkey1 FOREIGN KEY (device_id) REFERENCES public.gpu_devices(id);
ALTER TABLE ONLY public.gpu_lease_devices
    ADD CONSTRAINT gpu_lease_devices_lease_id_fkey1 FOREIGN KEY (lease_id) REFERENCES public.gpu_leases(id);
ALTER TABLE ONLY public.gpu_usage
    ADD CONSTRAINT gpu_usage_lease_id_fkey FOREIGN KEY (lease_id) REFERENCES public.gpu_leases(id);
ALTER TABLE ONLY public.gpu_watch
    ADD CONSTRAINT gpu_watch_lease_id_fkey FOREIGN KEY (lease_id) REFERENCES public.gpu_leases(id);
ALTER TABLE ONLY public.warm_servers
    ADD CONSTRAINT warm_servers_warm_id_fkey FOREIGN KEY (warm_id) REFERENCES public.warm_starts(id);
