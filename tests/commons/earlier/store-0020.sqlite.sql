BEGIN TRANSACTION;
CREATE TABLE announced_stops (
	username VARCHAR(255) NOT NULL, 
	server_name VARCHAR(255) NOT NULL, 
	"by" VARCHAR(255) NOT NULL, 
	message VARCHAR(500) NOT NULL, 
	at DATETIME NOT NULL, 
	stop_at DATETIME NOT NULL, 
	PRIMARY KEY (username, server_name)
);
INSERT INTO "announced_stops" VALUES('bob','','carol','a new kernel; ''save'' it','2026-11-20 12:00:00.000000','2026-11-20 12:30:00.000000');
CREATE TABLE directory_failures (
	"key" VARCHAR(255) NOT NULL, 
	times JSON NOT NULL, 
	last FLOAT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "directory_failures" VALUES('name:bob','[1.5, 2.25]',2.25);
CREATE TABLE directory_people (
	name VARCHAR(255) NOT NULL, 
	directory_id VARCHAR(64), 
	confirmed FLOAT NOT NULL, 
	barred FLOAT, 
	reason VARCHAR(64), 
	dismissed BOOLEAN NOT NULL, 
	roles JSON NOT NULL, 
	PRIMARY KEY (name), 
	UNIQUE (directory_id)
);
INSERT INTO "directory_people" VALUES('alice','6f1c',1795176000.0,NULL,NULL,0,'{"teams": {"vision": "lead"}}');
CREATE TABLE environment_builds (
	id VARCHAR(32) NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	requested_by VARCHAR(255) NOT NULL, 
	address VARCHAR(64), 
	spec TEXT NOT NULL, 
	words TEXT NOT NULL, 
	lock TEXT NOT NULL, 
	origin JSON, 
	state VARCHAR(16) NOT NULL, 
	percent INTEGER NOT NULL, 
	message TEXT NOT NULL, 
	version VARCHAR(64), 
	cancel_asked BOOLEAN NOT NULL, 
	attempts INTEGER NOT NULL, 
	queued_at DATETIME NOT NULL, 
	started_at DATETIME, 
	ended_at DATETIME, said JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "environment_builds" VALUES('b1','create','team','vision','analyse','bob',NULL,'name: analyse
dependencies: [python=3.13, pip: [numpy]]
','','',NULL,'failed',0,'no such package',NULL,0,0,'2026-11-20 12:00:00.000000',NULL,'2026-11-20 12:00:00.000000','{"text": "no %(x)s", "values": {"x": 1}}');
CREATE TABLE "environment_versions" (
	id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	image VARCHAR(255) NOT NULL, 
	image_id VARCHAR(80) NOT NULL, 
	prefix VARCHAR(255) NOT NULL, 
	python VARCHAR(32), 
	lock_digest VARCHAR(80) NOT NULL, 
	channels JSON NOT NULL, 
	words JSON NOT NULL, 
	main_packages JSON NOT NULL, 
	packages JSON NOT NULL, 
	kernelspecs JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	tag VARCHAR(64), 
	revision VARCHAR(64), 
	size BIGINT DEFAULT '0' NOT NULL, 
	cuda VARCHAR(32), 
	gpu VARCHAR(16) DEFAULT 'none' NOT NULL, 
	server_size VARCHAR(64), 
	access JSON DEFAULT '{}' NOT NULL, 
	findings JSON DEFAULT '[]' NOT NULL, 
	pinned BOOLEAN DEFAULT 0 NOT NULL, 
	deprecated_at DATETIME, 
	deprecated_reason VARCHAR(500), 
	withdrawn_at DATETIME, 
	withdrawn_reason VARCHAR(500), 
	removed BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "environment_versions" VALUES(1,'py313-data','2026.11.20-1','labcommons/env-py313-data:1','sha256:1111111111111111111111111111111111111111111111111111111111111111','/opt/conda/envs/py313-data','3.13.1','sha256:2222222222222222222222222222222222222222222222222222222222222222','["conda-forge"]','{"title": {"en": "Data", "zh_CN": "\u6570\u636e"}}','[{"name": "numpy", "version": "2.3"}]','[]','{"python3": {"argv": ["python"]}}','2026-11-20 12:00:00.000000','1.2.3',NULL,6442450944,NULL,'none',NULL,'{"teams": ["vision"], "courses": []}','[]',1,'2026-11-20 12:00:00.000000','old',NULL,NULL,0);
CREATE TABLE gpu_devices (
	id VARCHAR(96) NOT NULL, 
	node VARCHAR(255) NOT NULL, 
	model VARCHAR(80) NOT NULL, 
	memory BIGINT NOT NULL, 
	simulated BOOLEAN NOT NULL, 
	present BOOLEAN NOT NULL, 
	seen_at DATETIME NOT NULL, parent VARCHAR(96) DEFAULT '' NOT NULL, sharing VARCHAR(16) DEFAULT 'exclusive' NOT NULL, slots INTEGER DEFAULT '1' NOT NULL, weight FLOAT DEFAULT '1' NOT NULL, health VARCHAR(16) DEFAULT 'ok' NOT NULL, health_reason VARCHAR(255), health_since DATETIME, drained_at DATETIME, drained_by VARCHAR(255), drain_reason VARCHAR(255), 
	PRIMARY KEY (id)
);
INSERT INTO "gpu_devices" VALUES('GPU-51300000-0000-4000-8000-000000000000','local','A100',85899345920,1,1,'2026-11-15 12:00:00.000000','','exclusive',1,1.0,'ok',NULL,'2026-11-15 12:00:00.000000',NULL,NULL,NULL);
INSERT INTO "gpu_devices" VALUES('GPU-51300000-0000-4000-8000-000000000001','local','A100',85899345920,1,1,'2026-11-15 12:00:00.000000','','exclusive',1,1.0,'ok',NULL,'2026-11-15 12:00:00.000000',NULL,NULL,NULL);
INSERT INTO "gpu_devices" VALUES('GPU-51300000-0000-4000-8000-000000000002','local','RTX 4090',25769803776,1,1,'2026-11-15 12:00:00.000000','','exclusive',1,1.0,'ok',NULL,'2026-11-15 12:00:00.000000',NULL,NULL,NULL);
CREATE TABLE gpu_lease_devices (
	lease_id VARCHAR(32) NOT NULL, 
	device_id VARCHAR(96) NOT NULL, 
	slot INTEGER NOT NULL, 
	released_at DATETIME, 
	PRIMARY KEY (lease_id, device_id, slot), 
	FOREIGN KEY(device_id) REFERENCES gpu_devices (id), 
	FOREIGN KEY(lease_id) REFERENCES gpu_leases (id)
);
INSERT INTO "gpu_lease_devices" VALUES('000000000001000179d2c02e03de1547','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-16 11:30:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000020001e3d78797901ba83e','GPU-51300000-0000-4000-8000-000000000001',0,'2026-11-16 15:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000030001a698878d2b02650d','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-16 11:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('000000000006000168f7ab376f1af0ab','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-16 13:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('000000000008000105cd86551a330b4c','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-16 17:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000090001332c4bee7eee249d','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-16 14:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000000d0001b287ec4964eb370e','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-17 11:30:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000000e0001597b71664ba66441','GPU-51300000-0000-4000-8000-000000000001',0,'2026-11-17 15:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000000f0001b9c79177dd01d757','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-17 11:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000120001d346b36d99eb3a75','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-17 13:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000140001128fb3715bcfd368','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-17 17:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000150001ca58ee91d3f4bfbf','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-17 14:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000001900016f05a5d5cb1659b5','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-18 11:30:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000001a0001d4f8dfb66607e64b','GPU-51300000-0000-4000-8000-000000000001',0,'2026-11-18 15:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000001b0001bffc1ab019dff170','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-18 11:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000001e0001c3e756b92ffed13e','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-18 13:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002000019c539b4c63367674','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-18 17:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002100018d26ad7de6e6fa91','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-18 14:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('0000000000250001ba3e16ab53cb7d08','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-19 11:30:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002600015e2b90725d42ec4d','GPU-51300000-0000-4000-8000-000000000001',0,'2026-11-19 15:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002700018c0f2c3e28c927ea','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-19 11:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002a00019eaa3e21498b863a','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-19 13:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002c0001ea16b554b2dc9be8','GPU-51300000-0000-4000-8000-000000000000',0,'2026-11-19 17:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000002d0001328a8fa78a943d57','GPU-51300000-0000-4000-8000-000000000002',0,'2026-11-19 14:00:00.000000');
INSERT INTO "gpu_lease_devices" VALUES('00000000003400030cef79e629728c3a','GPU-51300000-0000-4000-8000-000000000002',0,NULL);
INSERT INTO "gpu_lease_devices" VALUES('000000000034000206f811a9c750bacc','GPU-51300000-0000-4000-8000-000000000000',0,NULL);
INSERT INTO "gpu_lease_devices" VALUES('0000000000340001eafa2e096b85511b','GPU-51300000-0000-4000-8000-000000000001',0,NULL);
CREATE TABLE "gpu_leases" (
	id VARCHAR(32) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	server_name VARCHAR(255) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	held_at DATETIME, 
	active_at DATETIME, 
	ended_at DATETIME, 
	ended_reason VARCHAR(64), 
	container_id VARCHAR(64), 
	account VARCHAR(255) DEFAULT ('') NOT NULL, 
	gpus INTEGER DEFAULT '1' NOT NULL, 
	gpu_type VARCHAR(80) DEFAULT ('') NOT NULL, 
	time_limit INTEGER, 
	user_options JSON DEFAULT '{}' NOT NULL, 
	requested_at DATETIME NOT NULL, 
	opened_at DATETIME, 
	ends_at DATETIME, 
	borrowed INTEGER DEFAULT '0' NOT NULL, 
	exempt_until DATETIME, 
	weight FLOAT DEFAULT '0' NOT NULL, 
	reservation_id VARCHAR(32), 
	verdict JSON, 
	stop_reason VARCHAR(64), 
	stop_at DATETIME, 
	warned_at DATETIME, 
	keep_until DATETIME, 
	PRIMARY KEY (id)
);
INSERT INTO "gpu_leases" VALUES('000000000001000179d2c02e03de1547','alice','','ended','2026-11-16 08:00:00.000000','2026-11-16 08:00:00.000000','2026-11-16 11:30:00.000000','stopped','demo','group:vision',1,'A100',12600,'{}','2026-11-16 08:00:00.000000',NULL,'2026-11-16 11:30:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000020001e3d78797901ba83e','bob','','ended','2026-11-16 09:00:00.000000','2026-11-16 09:00:00.000000','2026-11-16 15:00:00.000000','stopped','demo','group:vision',1,'A100',21600,'{}','2026-11-16 09:00:00.000000',NULL,'2026-11-16 15:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000030001a698878d2b02650d','s01','','ended','2026-11-16 10:00:00.000000','2026-11-16 10:00:00.000000','2026-11-16 11:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',3600,'{}','2026-11-16 10:00:00.000000',NULL,'2026-11-16 11:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('000000000006000168f7ab376f1af0ab','s02','','ended','2026-11-16 11:30:00.000000','2026-11-16 11:30:00.000000','2026-11-16 13:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',5400,'{}','2026-11-16 11:30:00.000000',NULL,'2026-11-16 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('000000000008000105cd86551a330b4c','alice','','ended','2026-11-16 13:00:00.000000','2026-11-16 13:00:00.000000','2026-11-16 17:00:00.000000','stopped','demo','group:vision',1,'A100',14400,'{}','2026-11-16 13:00:00.000000',NULL,'2026-11-16 17:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000090001332c4bee7eee249d','s03','','ended','2026-11-16 13:30:00.000000','2026-11-16 13:30:00.000000','2026-11-16 14:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',1800,'{}','2026-11-16 13:30:00.000000',NULL,'2026-11-16 14:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000000d0001b287ec4964eb370e','alice','','ended','2026-11-17 08:00:00.000000','2026-11-17 08:00:00.000000','2026-11-17 11:30:00.000000','stopped','demo','group:vision',1,'A100',12600,'{}','2026-11-17 08:00:00.000000',NULL,'2026-11-17 11:30:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000000e0001597b71664ba66441','bob','','ended','2026-11-17 09:00:00.000000','2026-11-17 09:00:00.000000','2026-11-17 15:00:00.000000','stopped','demo','group:vision',1,'A100',21600,'{}','2026-11-17 09:00:00.000000',NULL,'2026-11-17 15:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000000f0001b9c79177dd01d757','s01','','ended','2026-11-17 10:00:00.000000','2026-11-17 10:00:00.000000','2026-11-17 11:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',3600,'{}','2026-11-17 10:00:00.000000',NULL,'2026-11-17 11:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000120001d346b36d99eb3a75','s02','','ended','2026-11-17 11:30:00.000000','2026-11-17 11:30:00.000000','2026-11-17 13:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',5400,'{}','2026-11-17 11:30:00.000000',NULL,'2026-11-17 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000140001128fb3715bcfd368','alice','','ended','2026-11-17 13:00:00.000000','2026-11-17 13:00:00.000000','2026-11-17 17:00:00.000000','stopped','demo','group:vision',1,'A100',14400,'{}','2026-11-17 13:00:00.000000',NULL,'2026-11-17 17:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000150001ca58ee91d3f4bfbf','s03','','ended','2026-11-17 13:30:00.000000','2026-11-17 13:30:00.000000','2026-11-17 14:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',1800,'{}','2026-11-17 13:30:00.000000',NULL,'2026-11-17 14:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000001900016f05a5d5cb1659b5','alice','','ended','2026-11-18 08:00:00.000000','2026-11-18 08:00:00.000000','2026-11-18 11:30:00.000000','stopped','demo','group:vision',1,'A100',12600,'{}','2026-11-18 08:00:00.000000',NULL,'2026-11-18 11:30:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000001a0001d4f8dfb66607e64b','bob','','ended','2026-11-18 09:00:00.000000','2026-11-18 09:00:00.000000','2026-11-18 15:00:00.000000','stopped','demo','group:vision',1,'A100',21600,'{}','2026-11-18 09:00:00.000000',NULL,'2026-11-18 15:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000001b0001bffc1ab019dff170','s01','','ended','2026-11-18 10:00:00.000000','2026-11-18 10:00:00.000000','2026-11-18 11:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',3600,'{}','2026-11-18 10:00:00.000000',NULL,'2026-11-18 11:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000001e0001c3e756b92ffed13e','s02','','ended','2026-11-18 11:30:00.000000','2026-11-18 11:30:00.000000','2026-11-18 13:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',5400,'{}','2026-11-18 11:30:00.000000',NULL,'2026-11-18 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002000019c539b4c63367674','alice','','ended','2026-11-18 13:00:00.000000','2026-11-18 13:00:00.000000','2026-11-18 17:00:00.000000','stopped','demo','group:vision',1,'A100',14400,'{}','2026-11-18 13:00:00.000000',NULL,'2026-11-18 17:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002100018d26ad7de6e6fa91','s03','','ended','2026-11-18 13:30:00.000000','2026-11-18 13:30:00.000000','2026-11-18 14:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',1800,'{}','2026-11-18 13:30:00.000000',NULL,'2026-11-18 14:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000250001ba3e16ab53cb7d08','alice','','ended','2026-11-19 08:00:00.000000','2026-11-19 08:00:00.000000','2026-11-19 11:30:00.000000','stopped','demo','group:vision',1,'A100',12600,'{}','2026-11-19 08:00:00.000000',NULL,'2026-11-19 11:30:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002600015e2b90725d42ec4d','bob','','ended','2026-11-19 09:00:00.000000','2026-11-19 09:00:00.000000','2026-11-19 15:00:00.000000','stopped','demo','group:vision',1,'A100',21600,'{}','2026-11-19 09:00:00.000000',NULL,'2026-11-19 15:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002700018c0f2c3e28c927ea','s01','','ended','2026-11-19 10:00:00.000000','2026-11-19 10:00:00.000000','2026-11-19 11:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',3600,'{}','2026-11-19 10:00:00.000000',NULL,'2026-11-19 11:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002a00019eaa3e21498b863a','s02','','ended','2026-11-19 11:30:00.000000','2026-11-19 11:30:00.000000','2026-11-19 13:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',5400,'{}','2026-11-19 11:30:00.000000',NULL,'2026-11-19 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002c0001ea16b554b2dc9be8','alice','','ended','2026-11-19 13:00:00.000000','2026-11-19 13:00:00.000000','2026-11-19 17:00:00.000000','stopped','demo','group:vision',1,'A100',14400,'{}','2026-11-19 13:00:00.000000',NULL,'2026-11-19 17:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000002d0001328a8fa78a943d57','s03','','ended','2026-11-19 13:30:00.000000','2026-11-19 13:30:00.000000','2026-11-19 14:00:00.000000','stopped','demo','course:ml101',1,'RTX 4090',1800,'{}','2026-11-19 13:30:00.000000',NULL,'2026-11-19 14:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('0000000000340001eafa2e096b85511b','alice','','active','2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000',NULL,NULL,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','group:vision',1,'A100',3600,'{}','2026-11-20 12:00:00.000000',NULL,'2026-11-20 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('000000000034000206f811a9c750bacc','bob','second','held','2026-11-20 12:00:00.000000',NULL,NULL,NULL,NULL,'group:vision',1,'',7200,'{}','2026-11-20 12:00:00.000000',NULL,'2026-11-20 14:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('00000000003400030cef79e629728c3a','s01','','held','2026-11-20 12:00:00.000000',NULL,NULL,NULL,NULL,'course:ml101',1,'',3600,'{}','2026-11-20 12:00:00.000000',NULL,'2026-11-20 13:00:00.000000',0,NULL,1.0,NULL,'null',NULL,NULL,NULL,NULL);
INSERT INTO "gpu_leases" VALUES('000000000034000499c1f708e27a8b86','s02','','queued',NULL,NULL,NULL,NULL,NULL,'course:ml101',1,'',1800,'{}','2026-11-20 12:00:00.000000',NULL,NULL,0,NULL,0.0,NULL,'{"position": 1, "expected_start": 1795179600.0, "reasons": [{"code": "cohort_full", "data": {"cohort": "lab", "limit": 3, "held": 3, "gpus": 1, "until": 1795179600.0}}, {"code": "gpus_busy", "data": {"gpus": 1, "free": 0, "total": 3, "type": ""}}]}',NULL,NULL,NULL,NULL);
CREATE TABLE gpu_nodes (
	name VARCHAR(255) NOT NULL, 
	drained_at DATETIME, 
	drained_by VARCHAR(255), 
	drain_reason VARCHAR(255), 
	PRIMARY KEY (name)
);
INSERT INTO "gpu_nodes" VALUES('local','2026-11-20 12:00:00.000000','carol','a fan''s');
CREATE TABLE gpu_notices (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	lease_id VARCHAR(32), 
	code VARCHAR(64) NOT NULL, 
	data JSON NOT NULL, 
	"key" VARCHAR(160) NOT NULL, 
	seen_at DATETIME, 
	mailed_at DATETIME, server_name VARCHAR(255), 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "gpu_notices" VALUES(1,'2026-11-20 12:00:00.000000','alice','0000000000340001eafa2e096b85511b','granted','{}','granted:0000000000340001eafa2e096b85511b',NULL,NULL,NULL);
CREATE TABLE gpu_quota_changes (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	"by" VARCHAR(255) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	"before" JSON, 
	"after" JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "gpu_quota_changes" VALUES(1,'2026-11-28 00:48:51.667336','demo','settings','null','{"half_life": "7d", "strategy": "backfill", "hold_time": "10m", "warn_before": "15m"}');
INSERT INTO "gpu_quota_changes" VALUES(2,'2026-11-28 00:48:51.667336','demo','default','null','{"max_gpus": 1, "max_queued": 2, "time_limit": "8h", "default_time_limit": "2h", "idle": {"after": "2h", "gpu_percent": 5.0, "grace": "10m"}}');
INSERT INTO "gpu_quota_changes" VALUES(3,'2026-11-28 00:48:51.667336','demo','group:vision','null','{"max_gpus": 2, "grp_budget": {"gpu_hours": 400.0, "window": "month"}, "nominal": 2, "borrowing_limit": 1, "cohort": "lab", "preempt_exempt": "10m"}');
INSERT INTO "gpu_quota_changes" VALUES(4,'2026-11-28 00:48:51.667336','demo','course:ml101','null','{"max_gpus": 1, "time_limit": "2h", "default_time_limit": "1h", "budget": {"gpu_hours": 20.0, "window": "total"}, "idle": {"after": "30m"}, "nominal": 1, "borrowing_limit": 2, "cohort": "lab", "preempt_exempt": "10m"}');
CREATE TABLE gpu_quotas (
	subject VARCHAR(255) NOT NULL, 
	spec JSON NOT NULL, 
	changed_at DATETIME NOT NULL, 
	changed_by VARCHAR(255) NOT NULL, 
	PRIMARY KEY (subject)
);
INSERT INTO "gpu_quotas" VALUES('settings','{"half_life": "7d", "strategy": "backfill", "hold_time": "10m", "warn_before": "15m"}','2026-11-28 00:48:51.667336','demo');
INSERT INTO "gpu_quotas" VALUES('default','{"max_gpus": 1, "max_queued": 2, "time_limit": "8h", "default_time_limit": "2h", "idle": {"after": "2h", "gpu_percent": 5.0, "grace": "10m"}}','2026-11-28 00:48:51.667336','demo');
INSERT INTO "gpu_quotas" VALUES('group:vision','{"max_gpus": 2, "grp_budget": {"gpu_hours": 400.0, "window": "month"}, "nominal": 2, "borrowing_limit": 1, "cohort": "lab", "preempt_exempt": "10m"}','2026-11-28 00:48:51.667336','demo');
INSERT INTO "gpu_quotas" VALUES('course:ml101','{"max_gpus": 1, "time_limit": "2h", "default_time_limit": "1h", "budget": {"gpu_hours": 20.0, "window": "total"}, "idle": {"after": "30m"}, "nominal": 1, "borrowing_limit": 2, "cohort": "lab", "preempt_exempt": "10m"}','2026-11-28 00:48:51.667336','demo');
CREATE TABLE gpu_reservations (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	gpus INTEGER NOT NULL, 
	gpu_type VARCHAR(80) NOT NULL, 
	devices JSON NOT NULL, 
	starts DATETIME NOT NULL, 
	duration INTEGER NOT NULL, 
	timezone VARCHAR(64) NOT NULL, 
	repeat VARCHAR(16) NOT NULL, 
	weekdays JSON NOT NULL, 
	until VARCHAR(10), 
	skipped JSON NOT NULL, 
	created_by VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	cancelled_at DATETIME, 
	PRIMARY KEY (id)
);
INSERT INTO "gpu_reservations" VALUES('a6490d9d0d56','Machine learning, lab','course:ml101',1,'A100','[]','2026-11-21 10:00:00.000000',5400,'UTC','weekly','[0, 2, 4]',NULL,'[]','demo','2026-11-28 00:48:51.825386',NULL);
CREATE TABLE gpu_state (
	id INTEGER NOT NULL, 
	version BIGINT NOT NULL, 
	latest DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "gpu_state" VALUES(1,53,'2026-11-20 12:00:00.000000');
CREATE TABLE gpu_usage (
	lease_id VARCHAR(32) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	account VARCHAR(255) NOT NULL, 
	weight FLOAT NOT NULL, 
	started_at DATETIME NOT NULL, 
	charged_to DATETIME NOT NULL, 
	gpu_seconds FLOAT NOT NULL, 
	closed BOOLEAN NOT NULL, 
	PRIMARY KEY (lease_id), 
	FOREIGN KEY(lease_id) REFERENCES gpu_leases (id)
);
INSERT INTO "gpu_usage" VALUES('000000000001000179d2c02e03de1547','alice','group:vision',1.0,'2026-11-16 08:00:00.000000','2026-11-16 11:30:00.000000',12600.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000020001e3d78797901ba83e','bob','group:vision',1.0,'2026-11-16 09:00:00.000000','2026-11-16 15:00:00.000000',21600.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000030001a698878d2b02650d','s01','course:ml101',1.0,'2026-11-16 10:00:00.000000','2026-11-16 11:00:00.000000',3600.0,1);
INSERT INTO "gpu_usage" VALUES('000000000006000168f7ab376f1af0ab','s02','course:ml101',1.0,'2026-11-16 11:30:00.000000','2026-11-16 13:00:00.000000',5400.0,1);
INSERT INTO "gpu_usage" VALUES('000000000008000105cd86551a330b4c','alice','group:vision',1.0,'2026-11-16 13:00:00.000000','2026-11-16 17:00:00.000000',14400.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000090001332c4bee7eee249d','s03','course:ml101',1.0,'2026-11-16 13:30:00.000000','2026-11-16 14:00:00.000000',1800.0,1);
INSERT INTO "gpu_usage" VALUES('00000000000d0001b287ec4964eb370e','alice','group:vision',1.0,'2026-11-17 08:00:00.000000','2026-11-17 11:30:00.000000',12600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000000e0001597b71664ba66441','bob','group:vision',1.0,'2026-11-17 09:00:00.000000','2026-11-17 15:00:00.000000',21600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000000f0001b9c79177dd01d757','s01','course:ml101',1.0,'2026-11-17 10:00:00.000000','2026-11-17 11:00:00.000000',3600.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000120001d346b36d99eb3a75','s02','course:ml101',1.0,'2026-11-17 11:30:00.000000','2026-11-17 13:00:00.000000',5400.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000140001128fb3715bcfd368','alice','group:vision',1.0,'2026-11-17 13:00:00.000000','2026-11-17 17:00:00.000000',14400.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000150001ca58ee91d3f4bfbf','s03','course:ml101',1.0,'2026-11-17 13:30:00.000000','2026-11-17 14:00:00.000000',1800.0,1);
INSERT INTO "gpu_usage" VALUES('00000000001900016f05a5d5cb1659b5','alice','group:vision',1.0,'2026-11-18 08:00:00.000000','2026-11-18 11:30:00.000000',12600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000001a0001d4f8dfb66607e64b','bob','group:vision',1.0,'2026-11-18 09:00:00.000000','2026-11-18 15:00:00.000000',21600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000001b0001bffc1ab019dff170','s01','course:ml101',1.0,'2026-11-18 10:00:00.000000','2026-11-18 11:00:00.000000',3600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000001e0001c3e756b92ffed13e','s02','course:ml101',1.0,'2026-11-18 11:30:00.000000','2026-11-18 13:00:00.000000',5400.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002000019c539b4c63367674','alice','group:vision',1.0,'2026-11-18 13:00:00.000000','2026-11-18 17:00:00.000000',14400.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002100018d26ad7de6e6fa91','s03','course:ml101',1.0,'2026-11-18 13:30:00.000000','2026-11-18 14:00:00.000000',1800.0,1);
INSERT INTO "gpu_usage" VALUES('0000000000250001ba3e16ab53cb7d08','alice','group:vision',1.0,'2026-11-19 08:00:00.000000','2026-11-19 11:30:00.000000',12600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002600015e2b90725d42ec4d','bob','group:vision',1.0,'2026-11-19 09:00:00.000000','2026-11-19 15:00:00.000000',21600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002700018c0f2c3e28c927ea','s01','course:ml101',1.0,'2026-11-19 10:00:00.000000','2026-11-19 11:00:00.000000',3600.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002a00019eaa3e21498b863a','s02','course:ml101',1.0,'2026-11-19 11:30:00.000000','2026-11-19 13:00:00.000000',5400.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002c0001ea16b554b2dc9be8','alice','group:vision',1.0,'2026-11-19 13:00:00.000000','2026-11-19 17:00:00.000000',14400.0,1);
INSERT INTO "gpu_usage" VALUES('00000000002d0001328a8fa78a943d57','s03','course:ml101',1.0,'2026-11-19 13:30:00.000000','2026-11-19 14:00:00.000000',1800.0,1);
INSERT INTO "gpu_usage" VALUES('00000000003400030cef79e629728c3a','s01','course:ml101',1.0,'2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000',0.0,0);
INSERT INTO "gpu_usage" VALUES('000000000034000206f811a9c750bacc','bob','group:vision',1.0,'2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000',0.0,0);
INSERT INTO "gpu_usage" VALUES('0000000000340001eafa2e096b85511b','alice','group:vision',1.0,'2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000',0.0,0);
CREATE TABLE "gpu_usage_sums" (
	account VARCHAR(255) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	period VARCHAR(64) NOT NULL, 
	start FLOAT NOT NULL, 
	gpu_seconds FLOAT NOT NULL, 
	PRIMARY KEY (account, username, period)
);
INSERT INTO "gpu_usage_sums" VALUES('','','decay:604800',1794816000.0,0.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s01','decay:604800',1795086000.0,1.24628743763495313033e+04);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','alice','decay:604800',1795107600.0,91966.8105078321);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s02','decay:604800',1795093200.0,1.86750554600239556746e+04);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s03','decay:604800',1795096800.0,6.23786472029685319304e+03);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','bob','decay:604800',1795100400.0,7.40117436784810415681e+04);
INSERT INTO "gpu_usage_sums" VALUES('','','total',0.0,0.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s01','total',0.0,14400.0);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','alice','total',0.0,108000.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s02','total',0.0,21600.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s03','total',0.0,7200.0);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','bob','total',0.0,86400.0);
INSERT INTO "gpu_usage_sums" VALUES('','','month',1793491200.0,0.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s01','month',1793491200.0,14400.0);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','alice','month',1793491200.0,108000.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s02','month',1793491200.0,21600.0);
INSERT INTO "gpu_usage_sums" VALUES('course:ml101','s03','month',1793491200.0,7200.0);
INSERT INTO "gpu_usage_sums" VALUES('group:vision','bob','month',1793491200.0,86400.0);
CREATE TABLE gpu_watch (
	lease_id VARCHAR(32) NOT NULL, 
	at DATETIME NOT NULL, 
	use VARCHAR(16) NOT NULL, 
	gpu_percent FLOAT, 
	idle_seconds FLOAT NOT NULL, 
	warned_at DATETIME, 
	stop_at DATETIME, 
	warnings INTEGER NOT NULL, 
	kept_seconds FLOAT NOT NULL, prepared_seconds FLOAT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (lease_id), 
	FOREIGN KEY(lease_id) REFERENCES gpu_leases (id)
);
INSERT INTO "gpu_watch" VALUES('0000000000340001eafa2e096b85511b','2026-11-20 12:00:00.000000','idle',NULL,61.5,NULL,NULL,0,0.0,0.0);
CREATE TABLE kernel_usage (
	id INTEGER NOT NULL, 
	day DATE NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	kernel VARCHAR(128) NOT NULL, 
	source VARCHAR(96) NOT NULL, 
	environment VARCHAR(255) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	starts INTEGER NOT NULL, 
	last_start DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "kernel_usage" VALUES(1,'2026-11-20','alice','conda-image-py313-data-python3','image','py313-data','1',7,'2026-11-20 12:00:00.000000');
CREATE TABLE labcommons_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT labcommons_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "labcommons_alembic_version" VALUES('0020');
CREATE TABLE readers (
	username VARCHAR(255) NOT NULL, 
	chosen VARCHAR(16) NOT NULL, 
	directory VARCHAR(64) NOT NULL, 
	timezone VARCHAR(64) NOT NULL, 
	PRIMARY KEY (username)
);
INSERT INTO "readers" VALUES('李雷','zh_CN','','Asia/Shanghai');
CREATE TABLE refused_senders (
	username VARCHAR(255) NOT NULL, 
	sender VARCHAR(255) NOT NULL, 
	PRIMARY KEY (username, sender)
);
INSERT INTO "refused_senders" VALUES('alice','s02');
CREATE TABLE "registered_environments" (
	id INTEGER NOT NULL, 
	source VARCHAR(96) NOT NULL, 
	environment VARCHAR(255) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	label VARCHAR(128) NOT NULL, 
	prefix VARCHAR(1024) NOT NULL, 
	python VARCHAR(64), 
	state VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	facts JSON NOT NULL, 
	kernels JSON NOT NULL, 
	first_seen DATETIME NOT NULL, 
	last_seen DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "registered_environments" VALUES(1,'team-vision','analyse','live','vision','/opt/labcommons/teams/vision/envs/analyse',NULL,'ok','','{"title": {"en": "Data", "zh_CN": "\u6570\u636e"}}','[{"name": "k", "display_name": "K", "language": "R"}]','2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000');
CREATE TABLE "registry_sources" (
	source VARCHAR(96) NOT NULL, 
	device VARCHAR(32) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	since DATETIME NOT NULL, 
	PRIMARY KEY (source)
);
INSERT INTO "registry_sources" VALUES('shared','8:1','ok','','2026-11-20 12:00:00.000000');
CREATE TABLE "scope_environments" (
	id INTEGER NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	current BOOLEAN NOT NULL, 
	built_by VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	python VARCHAR(32), 
	lock_digest VARCHAR(80) NOT NULL, 
	size BIGINT NOT NULL, 
	spec TEXT NOT NULL, 
	words TEXT NOT NULL, 
	lock TEXT NOT NULL, 
	exports JSON NOT NULL, 
	packages JSON NOT NULL, 
	kernels JSON NOT NULL, 
	findings JSON NOT NULL, 
	origin JSON, tag VARCHAR(64), pinned BOOLEAN DEFAULT 0 NOT NULL, deprecated_at DATETIME, deprecated_reason VARCHAR(500), withdrawn_at DATETIME, withdrawn_reason VARCHAR(500), 
	PRIMARY KEY (id)
);
INSERT INTO "scope_environments" VALUES(1,'personal','alice','mine','1',1,'alice','2026-11-20 12:00:00.000000',NULL,'',0,'name: analyse
dependencies: [python=3.13, pip: [numpy]]
','','lock','{"pixi": "x"}','[]','{}','[{"rule": "old"}]',NULL,NULL,0,NULL,NULL,'2026-11-20 12:00:00.000000','wrong');
CREATE TABLE sent_notebooks (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	sender VARCHAR(255) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	environment VARCHAR(200) NOT NULL, 
	size INTEGER NOT NULL, 
	packed BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "sent_notebooks" VALUES(1,'2026-11-20 12:00:00.000000','bob','alice','Übung.ipynb','py313-data:2026.11.20-1',12,X'00FF78');
CREATE TABLE server_ends (
	id INTEGER NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	at DATETIME NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	server_name VARCHAR(255) NOT NULL, 
	lease_id VARCHAR(32), 
	cause VARCHAR(32) NOT NULL, 
	"by" VARCHAR(255) NOT NULL, 
	message VARCHAR(1000) NOT NULL, 
	data JSON NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "server_ends" VALUES(1,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','2026-11-28 00:48:51.876029','bob','',NULL,'out_of_memory','','','{"limit_bytes": 1099511627776, "size": "gro\u00df"}');
CREATE TABLE server_starts (
	username VARCHAR(255) NOT NULL, 
	server_name VARCHAR(255) NOT NULL, 
	user_options JSON NOT NULL, 
	asked_at DATETIME NOT NULL, 
	tries INTEGER NOT NULL, 
	PRIMARY KEY (username, server_name)
);
INSERT INTO "server_starts" VALUES('s03','','{"environment": "py313-data"}','2026-11-20 12:00:00.000000',1);
CREATE TABLE server_watch (
	"key" VARCHAR(128) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	server_name VARCHAR(255) NOT NULL, 
	at FLOAT NOT NULL, 
	use VARCHAR(16) NOT NULL, 
	idle_seconds FLOAT NOT NULL, 
	warned_at FLOAT, 
	stop_at FLOAT, 
	warnings INTEGER NOT NULL, 
	old_at FLOAT, 
	keep_until FLOAT, 
	kept_seconds FLOAT NOT NULL, 
	keep_for FLOAT NOT NULL, 
	keep_at_most FLOAT NOT NULL, 
	stopping BOOLEAN NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "server_watch" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','s01','',1795176000.0,'idle',0.0,1.5,NULL,0,NULL,NULL,0.0,3600.0,7200.0,1);
CREATE TABLE warm_servers (
	warm_id VARCHAR(32) NOT NULL, 
	username VARCHAR(255) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	tries INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	container VARCHAR(128) NOT NULL, 
	reason JSON, 
	chosen JSON, 
	PRIMARY KEY (warm_id, username), 
	FOREIGN KEY(warm_id) REFERENCES warm_starts (id)
);
INSERT INTO "warm_servers" VALUES('w1','s04','ready',1,'2026-11-20 12:00:00.000000','',NULL,NULL);
CREATE TABLE warm_starts (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	people JSON NOT NULL, 
	user_options JSON NOT NULL, 
	starts_at DATETIME NOT NULL, 
	hold_until DATETIME NOT NULL, 
	created_by VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	begun_at DATETIME, 
	cancelled_at DATETIME, 
	PRIMARY KEY (id)
);
INSERT INTO "warm_starts" VALUES('w1','lesson','course:ml101','[]','{"size": "small"}','2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000','dan','2026-11-20 12:00:00.000000',NULL,NULL);
CREATE INDEX ix_gpu_leases_state ON gpu_leases (state);
CREATE INDEX ix_gpu_leases_username ON gpu_leases (username);
CREATE INDEX ix_gpu_leases_account ON gpu_leases (account);
CREATE INDEX ix_gpu_leases_ended_at ON gpu_leases (ended_at);
CREATE UNIQUE INDEX uq_gpu_leases_live ON gpu_leases (username, server_name) WHERE state <> 'ended';
CREATE UNIQUE INDEX uq_gpu_lease_devices_live ON gpu_lease_devices (device_id, slot) WHERE released_at IS NULL;
CREATE INDEX ix_gpu_usage_username ON gpu_usage (username);
CREATE INDEX ix_gpu_usage_account ON gpu_usage (account);
CREATE INDEX ix_gpu_usage_charged_to ON gpu_usage (charged_to);
CREATE INDEX ix_gpu_quota_changes_subject ON gpu_quota_changes (subject);
CREATE INDEX ix_gpu_notices_username ON gpu_notices (username);
CREATE UNIQUE INDEX uq_environment_versions ON environment_versions (name, version);
CREATE INDEX ix_environment_builds_requested_by ON environment_builds (requested_by);
CREATE INDEX ix_environment_builds_state ON environment_builds (state);
CREATE UNIQUE INDEX uq_environment_builds_running ON environment_builds (scope, owner, name) WHERE state = 'running';
CREATE UNIQUE INDEX uq_kernel_usage ON kernel_usage (day, username, kernel, source, environment, version);
CREATE INDEX ix_kernel_usage_day ON kernel_usage (day);
CREATE UNIQUE INDEX uq_registered_environments ON registered_environments (source, environment, version);
CREATE INDEX ix_server_ends_at ON server_ends (at);
CREATE INDEX ix_server_ends_server ON server_ends (username, server_name);
CREATE UNIQUE INDEX uq_scope_environments ON scope_environments (scope, owner, name, version);
CREATE INDEX ix_sent_notebooks_username ON sent_notebooks (username);
CREATE INDEX ix_sent_notebooks_sender ON sent_notebooks (sender, at);
CREATE INDEX ix_server_watch_username ON server_watch (username);
CREATE INDEX ix_warm_servers_state ON warm_servers (state);
COMMIT;
