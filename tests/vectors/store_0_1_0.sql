-- The bank's store as release 0.1.0 left it: one run with the shop that a person approved and that succeeded, one that failed,
-- tickets that it granted, offered, revoked and holds, a model, and what else a gateway keeps. Made by two real gateways.
-- bank's ticket key: jkLsJjqRudRqu90Ez7PyP/+wFslp8r+47x17VnQi0WE=
-- shop's ticket key: yZcmv7MfL7SqmjMMo8cN67RIMzH2XgZXwfHzqEFKHsg=
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE approvals (
	run_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	clause TEXT NOT NULL, 
	asked_ms BIGINT NOT NULL, 
	until_ms BIGINT NOT NULL, 
	decided_ms BIGINT, 
	decided_by TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	CONSTRAINT pk_approvals PRIMARY KEY (run_id), 
	CONSTRAINT fk_approvals_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id), 
	CONSTRAINT ck_approvals_ck_approvals_state CHECK (state IN ('asked', 'approved', 'rejected', 'expired'))
);
INSERT INTO "approvals" VALUES('train_split_nn.2026-11-21.1','approved','approval',1795935588177,1795935648275,1795935588513,'','');
CREATE TABLE audit (
	seq BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	decision TEXT NOT NULL, 
	detail JSON NOT NULL, 
	previous TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	CONSTRAINT pk_audit PRIMARY KEY (seq), 
	CONSTRAINT ck_audit_decision CHECK (decision IN ('allowed', 'refused', 'noted'))
);
INSERT INTO "audit" VALUES(1,1795935587835,'eve','ticket.revoked','noted','{"ticket": "t-revoked", "peer": "shop", "reason": "no longer needed"}','0000000000000000000000000000000000000000000000000000000000000000','11b650cbf7868c46a860ca40a3f38319d029c75e11fce4e378f361412153c9ae');
INSERT INTO "audit" VALUES(2,1795935588178,'bank','run.open','noted','{"run_id": "train_split_nn.2026-11-21.1", "ticket": "t-held"}','11b650cbf7868c46a860ca40a3f38319d029c75e11fce4e378f361412153c9ae','3ccaf39d45337ffa7ce701192bf7edcab9351bfcb35159c25308f4f701b1a652');
INSERT INTO "audit" VALUES(3,1795935589512,'bank','model.publish','noted','{"model": "credit", "version": 1, "run_id": "train_split_nn.2026-11-21.1"}','3ccaf39d45337ffa7ce701192bf7edcab9351bfcb35159c25308f4f701b1a652','959c191a62c9b6c8dae87167fa2dd76c933c18edf0873a6a8dbe6299bf334a66');
INSERT INTO "audit" VALUES(4,1795935589926,'shop','run.start','allowed','{"peer": "shop", "pipeline": "train_split_nn", "partition": "2026-11-22", "ticket": "t-granted", "run_id": "train_split_nn.2026-11-22.1", "new": true}','959c191a62c9b6c8dae87167fa2dd76c933c18edf0873a6a8dbe6299bf334a66','8be4fcf856820ffe1f6dee21bec314d7891f4fe31cae023930fa0d897b9576b0');
INSERT INTO "audit" VALUES(5,1795935590412,'bank','use.count','allowed','{"run_id": "train_split_nn.2026-11-22.1", "task": "psi", "attempt": 1, "kind": "ids_blinded", "amount": 25, "ticket": "t-granted", "used": 25}','8be4fcf856820ffe1f6dee21bec314d7891f4fe31cae023930fa0d897b9576b0','11adadfc654d0796bcd33d4e81ce7d0d1edef3117b400c1ff788f33a78cfcd52');
INSERT INTO "audit" VALUES(6,1795935590437,'bank','run.end','noted','{"run_id": "train_split_nn.2026-11-22.1", "state": "failed", "code": "DATA_CORRUPT"}','11adadfc654d0796bcd33d4e81ce7d0d1edef3117b400c1ff788f33a78cfcd52','97640123b792b754878d5bddb6d0cd44bc56b56f5b9da4930e8b5fe8bfc31422');
INSERT INTO "audit" VALUES(7,1795935590763,'bank','data.land','noted','{"dataset": "loans", "partition": "2026-11-21", "rows": 300}','97640123b792b754878d5bddb6d0cd44bc56b56f5b9da4930e8b5fe8bfc31422','a8bd23f0211a88328dfbc8c200c5c9ddd857989dd1da65555694e4c4029b06c3');
INSERT INTO "audit" VALUES(8,1795935590831,'eve','ticket.requested','noted','{"request": "a3294bb713898143", "peer": "shop", "pipelines": ["train_split_nn"], "dataset": "customers", "role": "leader", "days": 30, "reason": "more features"}','a8bd23f0211a88328dfbc8c200c5c9ddd857989dd1da65555694e4c4029b06c3','90236a642a5c9aaee66f8d563d8a45be961a455f24126405df48516a65d75d51');
CREATE TABLE disclosures (
	run_id TEXT NOT NULL, 
	task TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	messages BIGINT NOT NULL, 
	items BIGINT NOT NULL, 
	bytes BIGINT NOT NULL, 
	CONSTRAINT pk_disclosures PRIMARY KEY (run_id, task, attempt, name), 
	CONSTRAINT fk_disclosures_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "disclosures" VALUES('train_split_nn.2026-11-21.1','psi',1,'blinded',2,40,1280);
CREATE TABLE halves (
	run_id TEXT NOT NULL, 
	task TEXT NOT NULL, 
	own BOOLEAN NOT NULL, 
	attempt INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	token TEXT NOT NULL, 
	since_ms BIGINT NOT NULL, 
	until_ms BIGINT NOT NULL, 
	failure JSON, 
	outcome JSON, 
	progress JSON, announced_ms BIGINT DEFAULT '0' NOT NULL, started_ms BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_halves PRIMARY KEY (run_id, task, own), 
	CONSTRAINT fk_halves_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id), 
	CONSTRAINT ck_halves_state CHECK (state IN ('waiting', 'running', 'succeeded', 'failed'))
);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','approve',1,1,'succeeded','a',1795935588515,0,NULL,'{}',NULL,1795935588277,0);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','approve',0,1,'succeeded','',1795935588437,0,NULL,'{}',NULL,1795935588352,0);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','psi',1,1,'succeeded','psi',1795935588950,0,NULL,'{"counts": {"ids_blinded": 40, "people_shared": 30}, "digests": {"order": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}}','{"of": 3, "step": 3}',1795935588544,1795935588812);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','psi',0,1,'succeeded','',1795935589051,0,NULL,'{"counts": {"ids_blinded": 40, "people_shared": 30}, "digests": {"order": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}}',NULL,1795935588670,1795935588853);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','train',1,1,'succeeded','train',1795935589519,0,NULL,'{"counts": {"epochs": 3, "rows": 30}, "digests": {"model": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}}','{"of": 3, "step": 3}',1795935589111,1795935589332);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-21.1','train',0,1,'succeeded','',1795935589534,0,NULL,'{"counts": {"epochs": 3, "rows": 30}, "digests": {"model": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}}',NULL,1795935589173,1795935589369);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-22.1','psi',1,1,'failed','p',1795935590422,0,'{"code": "DATA_CORRUPT", "text": "A file does not match its manifest", "party": "bank", "task": "psi", "at_ms": 1795935590422}',NULL,NULL,1795935590042,1795935590302);
INSERT INTO "halves" VALUES('train_split_nn.2026-11-22.1','psi',0,1,'failed','',1795935590563,0,'{"code": "PEER_FAILED", "text": "DATA_CORRUPT: A file does not match its manifest", "party": "shop", "task": "psi", "at_ms": 1795935590422}',NULL,NULL,1795935590075,1795935590332);
CREATE TABLE landings (
	party TEXT NOT NULL, 
	dataset TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	landed_ms BIGINT NOT NULL, 
	synced BOOLEAN NOT NULL, 
	CONSTRAINT pk_landings PRIMARY KEY (party, dataset, partition)
);
INSERT INTO "landings" VALUES('bank','loans','2026-11-21',300,1795935590760,1);
INSERT INTO "landings" VALUES('shop','customers','2026-11-21',0,1795935590855,1);
CREATE TABLE metrics (
	run_id TEXT NOT NULL, 
	task TEXT NOT NULL, 
	name TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	value FLOAT, 
	at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_metrics PRIMARY KEY (run_id, task, name, step), 
	CONSTRAINT fk_metrics_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "metrics" VALUES('train_split_nn.2026-11-21.1','train','loss',1,0.75,1795935589384);
INSERT INTO "metrics" VALUES('train_split_nn.2026-11-21.1','train','loss',2,0.5,1795935589430);
INSERT INTO "metrics" VALUES('train_split_nn.2026-11-21.1','train','loss',3,NULL,1795935589439);
CREATE TABLE models (
	model TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	peer TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	parent INTEGER, 
	own_digest TEXT NOT NULL, 
	peer_digest TEXT NOT NULL, 
	metrics JSON, 
	consumed JSON NOT NULL, 
	champion BOOLEAN NOT NULL, 
	published_ms BIGINT NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (model, version), 
	CONSTRAINT fk_models_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "models" VALUES('credit',1,'shop','train_split_nn.2026-11-21.1','2026-11-21',NULL,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','{"auc": 0.8}','{"loans": ["2026-11-21"]}',1,1795935589499);
CREATE TABLE peers (
	name TEXT NOT NULL, 
	connected BOOLEAN NOT NULL, 
	version TEXT NOT NULL, 
	clock_skew_s FLOAT NOT NULL, 
	failure JSON, 
	since_ms BIGINT NOT NULL, 
	seen_ms BIGINT NOT NULL, 
	checks JSON, 
	checked_ms BIGINT, 
	CONSTRAINT pk_peers PRIMARY KEY (name)
);
INSERT INTO "peers" VALUES('shop',1,'0.1.0',-0.031,NULL,1795935586466,1795935586488,'[{"name": "connection", "ok": true, "code": "", "text": "the gateways are connected, accepted"}, {"name": "version", "ok": true, "code": "", "text": "bank 0.1.0, shop 0.1.0"}, {"name": "clock", "ok": true, "code": "", "text": "the clocks differ by 0.0 s, allowed are 60 s"}, {"name": "bank: certificate", "ok": true, "code": "", "text": "the gateway''s certificate is valid for 824 more days"}, {"name": "bank: ticket", "ok": true, "code": "", "text": "a ticket in force covers this pipeline"}, {"name": "bank: DAG", "ok": true, "code": "", "text": "train_split_nn would start at once in bank''s Airflow"}, {"name": "shop: certificate", "ok": true, "code": "", "text": "the gateway''s certificate is valid for 824 more days"}, {"name": "shop: ticket", "ok": true, "code": "", "text": "a ticket in force covers this pipeline"}, {"name": "shop: DAG", "ok": true, "code": "", "text": "train_split_nn would start at once in shop''s Airflow"}]',1795935590926);
CREATE TABLE refusals (
	dag_id TEXT NOT NULL, 
	dag_run_id TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	peer TEXT NOT NULL, 
	failure JSON NOT NULL, 
	at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_refusals PRIMARY KEY (dag_id, dag_run_id)
);
INSERT INTO "refusals" VALUES('train_split_nn','manual-3','2026-11-23','shop','{"code": "FLOOR_VIOLATED", "text": "The run would fall below the ticket''s privacy floor (clause=limits.epochs, asked=`epochs` is not named in any step''s settings, allowed=5)", "party": "shop", "task": "open_run", "at_ms": 1795935590729}',1795935590729);
CREATE TABLE runs (
	run_id TEXT NOT NULL, 
	pipeline TEXT NOT NULL, 
	partition TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	peer TEXT NOT NULL, 
	initiated BOOLEAN NOT NULL, 
	ticket_id TEXT NOT NULL, 
	config_digest TEXT NOT NULL, 
	config_json TEXT NOT NULL, 
	steps_json TEXT NOT NULL, 
	dag_id TEXT NOT NULL, 
	dag_run_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	failure JSON, 
	peer_state TEXT NOT NULL, 
	peer_failure JSON, 
	receipt TEXT NOT NULL, 
	peer_receipt TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	acked_version BIGINT NOT NULL, 
	peer_version BIGINT NOT NULL, 
	note TEXT NOT NULL, 
	opened_ms BIGINT NOT NULL, 
	closed_ms BIGINT, 
	reason TEXT NOT NULL, at_rest BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_runs PRIMARY KEY (run_id), 
	CONSTRAINT ck_runs_state CHECK (state IN ('running', 'succeeded', 'failed'))
);
INSERT INTO "runs" VALUES('train_split_nn.2026-11-21.1','train_split_nn','2026-11-21',1,'shop',1,'t-held','05e2579ff75dc6d5a197e9309500ca50b8df988901e18da322ac075e8bbc04e3','{"datasets":{"bank":"loans","shop":"customers"},"leader":"bank","steps":{"train":{"epochs":3}}}','[{"name": "psi", "digest": "a"}, {"name": "train", "digest": "b"}]','train_split_nn','manual-1','succeeded',NULL,'succeeded',NULL,'eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXJlY2VpcHQifQ.eyJjb25maWdfZGlnZXN0IjoiMDVlMjU3OWZmNzVkYzZkNWExOTdlOTMwOTUwMGNhNTBiOGRmOTg4OTAxZTE4ZGEzMjJhYzA3NWU4YmJjMDRlMyIsInBhcnR5IjoiYmFuayIsInJ1bl9pZCI6InRyYWluX3NwbGl0X25uLjIwMjYtMTEtMjEuMSIsInRhc2tzIjp7ImFwcHJvdmUiOnt9LCJwc2kiOnsiY291bnRzIjp7Imlkc19ibGluZGVkIjo0MCwicGVvcGxlX3NoYXJlZCI6MzB9LCJkaWdlc3RzIjp7Im9yZGVyIjoiY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjYyJ9fSwidHJhaW4iOnsiY291bnRzIjp7ImVwb2NocyI6Mywicm93cyI6MzB9LCJkaWdlc3RzIjp7Im1vZGVsIjoiZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZCJ9fX0sInRpY2tldF9pZCI6InQtaGVsZCJ9.Pj83euDS6lMv2zwnPpUqOUG10XQRlW8lSq4YEKJXgnP-TMpY7dm7Y761YbZ3Z82VPzjTx5b9CCLbYBYbPRmeAA','eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXJlY2VpcHQifQ.eyJjb25maWdfZGlnZXN0IjoiMDVlMjU3OWZmNzVkYzZkNWExOTdlOTMwOTUwMGNhNTBiOGRmOTg4OTAxZTE4ZGEzMjJhYzA3NWU4YmJjMDRlMyIsInBhcnR5Ijoic2hvcCIsInJ1bl9pZCI6InRyYWluX3NwbGl0X25uLjIwMjYtMTEtMjEuMSIsInRhc2tzIjp7ImFwcHJvdmUiOnt9LCJwc2kiOnsiY291bnRzIjp7Imlkc19ibGluZGVkIjo0MCwicGVvcGxlX3NoYXJlZCI6MzB9LCJkaWdlc3RzIjp7Im9yZGVyIjoiY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjYyJ9fSwidHJhaW4iOnsiY291bnRzIjp7ImVwb2NocyI6Mywicm93cyI6MzB9LCJkaWdlc3RzIjp7Im1vZGVsIjoiZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZCJ9fX0sInRpY2tldF9pZCI6InQtaGVsZCJ9.2etUqh6l0ZpUy2u_OhPA29WknQltkZWQkyodiMMErFENsbOxml14MgJXJpVordtSAwXol9hQC-lqGGGcXBD1CQ',11,11,11,'✅ Done with shop · at 06:59:49 UTC · 40 ids blinded, 30 people shared, 3 epochs, 30 rows · `train_split_nn.2026-11-21.1` · [details](/dags/train_split_nn/runs/manual-1/plugin/federated)',1795935588177,1795935589736,'the nightly run',1);
INSERT INTO "runs" VALUES('train_split_nn.2026-11-22.1','train_split_nn','2026-11-22',1,'shop',0,'t-granted','05e2579ff75dc6d5a197e9309500ca50b8df988901e18da322ac075e8bbc04e3','{"datasets":{"bank":"loans","shop":"customers"},"leader":"bank","steps":{"train":{"epochs":3}}}','[{"name": "psi", "digest": "a"}, {"name": "train", "digest": "b"}]','train_split_nn','train_split_nn.2026-11-22.1','failed','{"code": "DATA_CORRUPT", "text": "A file does not match its manifest", "party": "bank", "task": "psi", "at_ms": 1795935590422}','failed','{"code": "PEER_FAILED", "text": "DATA_CORRUPT: A file does not match its manifest", "party": "shop", "task": "psi", "at_ms": 1795935590422}','','',5,5,4,'❌ Failed at bank · psi · DATA_CORRUPT · A file does not match its manifest · Clear the task that wrote it · to act: bank · `train_split_nn.2026-11-22.1` · [details](/dags/train_split_nn/runs/train_split_nn.2026-11-22.1/plugin/federated)',1795935589851,1795935590428,'',0);
CREATE TABLE sessions (
	run_id TEXT NOT NULL, 
	task TEXT NOT NULL, 
	shard INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	bytes_sent BIGINT NOT NULL, 
	bytes_received BIGINT NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (run_id, task, shard, attempt), 
	CONSTRAINT fk_sessions_run_id FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "sessions" VALUES('train_split_nn.2026-11-21.1','psi',0,1,2048,4096);
CREATE TABLE tag_tables (
	table_id INTEGER NOT NULL, 
	dataset TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	generation TEXT NOT NULL, 
	columns JSON NOT NULL, 
	rows BIGINT NOT NULL, 
	loaded_ms BIGINT NOT NULL, 
	CONSTRAINT pk_tag_tables PRIMARY KEY (dataset, key_id)
);
INSERT INTO "tag_tables" VALUES(1,'loans','k-1','g-1','["a"]',2,1795935593075);
CREATE TABLE tags (
	table_id INTEGER NOT NULL, 
	tag BLOB NOT NULL, 
	id TEXT NOT NULL, 
	answer TEXT, 
	CONSTRAINT pk_tags PRIMARY KEY (table_id, tag)
);
INSERT INTO "tags" VALUES(1,X'0707070707070707070707070707070707070707070707070707070707070707','007','{"a": 1}');
INSERT INTO "tags" VALUES(1,X'0808080808080808080808080808080808080808080808080808080808080808','8',NULL);
CREATE TABLE ticket_requests (
	request_id TEXT NOT NULL, 
	peer TEXT NOT NULL, 
	own BOOLEAN NOT NULL, 
	asked JSON NOT NULL, 
	state TEXT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_ticket_requests PRIMARY KEY (request_id), 
	CONSTRAINT ck_ticket_requests_ck_ticket_requests_state CHECK (state IN ('open', 'granted', 'declined'))
);
INSERT INTO "ticket_requests" VALUES('a3294bb713898143','shop',1,'{"pipelines": ["train_split_nn"], "dataset": "customers", "role": "leader", "days": 30, "reason": "more features"}','open',1795935590789);
CREATE TABLE tickets (
	ticket_id TEXT NOT NULL, 
	peer TEXT NOT NULL, 
	granted BOOLEAN NOT NULL, 
	grant TEXT NOT NULL, 
	acceptance TEXT, 
	revocation TEXT, 
	issued_ms BIGINT NOT NULL, 
	synced BOOLEAN NOT NULL, 
	CONSTRAINT pk_tickets PRIMARY KEY (ticket_id)
);
INSERT INTO "tickets" VALUES('t-held','shop',0,'eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXRpY2tldCJ9.eyJhcHByb3ZhbCI6InBlcnNvbiIsImRhdGFzZXRzIjpbeyJjb2x1bW5zIjpbImEiXSwibmFtZSI6ImN1c3RvbWVycyIsInNjaGVtYV9kaWdlc3QiOiI5ZDYyMmQ5ZmNlZmE1NjMzNGQyZDA4YzRiYzlhMmE2NmU4YmY5ZTk2MjAyNTBkNzgwOWEyZWY1MGUwZDFlMTUyIn1dLCJleHAiOjE3OTU5MzkxODYsImZsb29yIjp7ImZpcnN0X3RyZWUiOiJib3RoIiwia2V5X2JpdHMiOjIwNDgsIm1pbl9pbnRlcnNlY3Rpb24iOjEsIm1pbl9sZWFmX3Jvd3MiOjF9LCJpc3MiOiJzaG9wIiwianRpIjoidC1oZWxkIiwibGltaXRzIjp7ImNvbmN1cnJlbnRfcnVucyI6MiwiZXBvY2hzIjo1LCJpZHNfYmxpbmRlZCI6MTAwMCwiaWRzX2JsaW5kZWRfcGVyX2RheSI6NTAwLCJsb29rdXBzIjpudWxsLCJsb29rdXBzX3Blcl9kYXkiOm51bGwsInJ1bnMiOjEwLCJ0cmVlcyI6bnVsbH0sIm5iZiI6MTc5NTkzNTU3Niwib3V0cHV0cyI6eyJhbnN3ZXJfY29sdW1ucyI6W10sImFuc3dlcnMiOiJub3RoaW5nIiwiaW50ZXJzZWN0aW9uIjoiYm90aCIsIm1ldHJpY3MiOiJsZWFkZXIiLCJzY29yZXMiOiJsZWFkZXIifSwicGlwZWxpbmVzIjpbInRyYWluX3NwbGl0X25uIl0sInJvbGVzIjpbImxlYWRlciIsImZvbGxvd2VyIl0sInN1YiI6ImJhbmsifQ.0JGDFog-l4eKJYS5HYVd8A3GwTMA3gGIfCPUz0GQAOlyzAZ_k9YBSjvC73t_5FVft1M2ByjFEiLJQN96ZjxsDA','eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLWFjY2VwdGFuY2UifQ.eyJpYXQiOjE3OTU5MzU1ODYsImlzcyI6ImJhbmsiLCJ0aWNrZXRfc2hhMjU2IjoiZmY3MTQxYzE2NzVjY2IxNmU1ZTVjODNlYTZhNjIzMzUzNzI5NTQxOWYxZDYyMGQwZGExMWQ0OTA4Nzk2YzY0ZCJ9.u9UjmOVRGkLz20JNBwMqXKpsrc4vIb5QiKOdxjLq2-_bXnOkzPUI6pghBOy0TqnYrpGL1YvPelaJoF5LItJpBg',NULL,1795935586694,1);
INSERT INTO "tickets" VALUES('t-granted','shop',1,'eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXRpY2tldCJ9.eyJhcHByb3ZhbCI6ImF1dG9tYXRpYyIsImRhdGFzZXRzIjpbeyJjb2x1bW5zIjpbImEiXSwibmFtZSI6ImxvYW5zIiwic2NoZW1hX2RpZ2VzdCI6ImU4NTU0YzIyMDhiNjhjYTQ1MGMxZjQxNmM2YjYzMzQxZmNhMzE2MDNiNTYyMWRlM2M2N2ZiMTYzY2U3ZGU2ZjgifV0sImV4cCI6MTc5NTkzOTE4NiwiZmxvb3IiOnsiZmlyc3RfdHJlZSI6ImJvdGgiLCJrZXlfYml0cyI6MjA0OCwibWluX2ludGVyc2VjdGlvbiI6MSwibWluX2xlYWZfcm93cyI6MX0sImlzcyI6ImJhbmsiLCJqdGkiOiJ0LWdyYW50ZWQiLCJsaW1pdHMiOnsiY29uY3VycmVudF9ydW5zIjoxLCJlcG9jaHMiOm51bGwsImlkc19ibGluZGVkIjo0MDAsImlkc19ibGluZGVkX3Blcl9kYXkiOm51bGwsImxvb2t1cHMiOm51bGwsImxvb2t1cHNfcGVyX2RheSI6bnVsbCwicnVucyI6MywidHJlZXMiOm51bGx9LCJuYmYiOjE3OTU5MzU1NzYsIm91dHB1dHMiOnsiYW5zd2VyX2NvbHVtbnMiOltdLCJhbnN3ZXJzIjoibm90aGluZyIsImludGVyc2VjdGlvbiI6ImJvdGgiLCJtZXRyaWNzIjoibGVhZGVyIiwic2NvcmVzIjoibGVhZGVyIn0sInBpcGVsaW5lcyI6WyJ0cmFpbl9zcGxpdF9ubiJdLCJyb2xlcyI6WyJsZWFkZXIiLCJmb2xsb3dlciJdLCJzdWIiOiJzaG9wIn0.QdLFyETXXzwZQfN_oVLH7uwfcP6oTcVJlRTQJBIaFIV17qLdBtyb4ektqgo5bxV89GNTPnYfOl4A1IlRSvPNAQ','eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLWFjY2VwdGFuY2UifQ.eyJpYXQiOjE3OTU5MzU1ODYsImlzcyI6InNob3AiLCJ0aWNrZXRfc2hhMjU2IjoiNDhkZmRmNmU1ZWNmYTA3Njc4NGI3YTI4YWZhM2NlZTU4YTY2OGQ1Mjc1ZTUyMmYyZWRhZjk5ODc4M2UyYWZmYyJ9.HvR3dMujN6ycFK_JXqC3d86iFE31kcRoDAeg2BHdgkBaBgzDjpJwCyYa_Ny-RHSMePZG6CTc4krLVYYOn3TlDQ',NULL,1795935586876,1);
INSERT INTO "tickets" VALUES('t-revoked','shop',1,'eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXRpY2tldCJ9.eyJhcHByb3ZhbCI6ImF1dG9tYXRpYyIsImRhdGFzZXRzIjpbeyJjb2x1bW5zIjpbImEiXSwibmFtZSI6ImxvYW5zIiwic2NoZW1hX2RpZ2VzdCI6ImU4NTU0YzIyMDhiNjhjYTQ1MGMxZjQxNmM2YjYzMzQxZmNhMzE2MDNiNTYyMWRlM2M2N2ZiMTYzY2U3ZGU2ZjgifV0sImV4cCI6MTc5NTkzOTE4NywiZmxvb3IiOnsiZmlyc3RfdHJlZSI6ImJvdGgiLCJrZXlfYml0cyI6MjA0OCwibWluX2ludGVyc2VjdGlvbiI6MSwibWluX2xlYWZfcm93cyI6MX0sImlzcyI6ImJhbmsiLCJqdGkiOiJ0LXJldm9rZWQiLCJsaW1pdHMiOnsiY29uY3VycmVudF9ydW5zIjo1LCJlcG9jaHMiOm51bGwsImlkc19ibGluZGVkIjpudWxsLCJpZHNfYmxpbmRlZF9wZXJfZGF5IjpudWxsLCJsb29rdXBzIjpudWxsLCJsb29rdXBzX3Blcl9kYXkiOm51bGwsInJ1bnMiOjEwLCJ0cmVlcyI6bnVsbH0sIm5iZiI6MTc5NTkzNTU3Nywib3V0cHV0cyI6eyJhbnN3ZXJfY29sdW1ucyI6W10sImFuc3dlcnMiOiJub3RoaW5nIiwiaW50ZXJzZWN0aW9uIjoiYm90aCIsIm1ldHJpY3MiOiJsZWFkZXIiLCJzY29yZXMiOiJsZWFkZXIifSwicGlwZWxpbmVzIjpbInRyYWluX3NwbGl0X25uIl0sInJvbGVzIjpbImxlYWRlciIsImZvbGxvd2VyIl0sInN1YiI6InNob3AifQ.XAesHTJe3eLhzp5vaHo_WMnOyRexK5LV9d2R-oadiZHpV8TeWqL1iMOPaS-mvV8fPsObZUmIbmLf4OC9R_5-Bg','eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLWFjY2VwdGFuY2UifQ.eyJpYXQiOjE3OTU5MzU1ODcsImlzcyI6InNob3AiLCJ0aWNrZXRfc2hhMjU2IjoiYThlMGZhNzMyZTM2MmM4NDlhZjEzZGY0N2U5MWNhMDM1NTExNGQ4OTk0ZjYxNzdlNTAyYmM5MjA0NWE3MGY2NSJ9.wJKMsaq9gNf2pKezqxeoeVXJvAtyWib1d1dpkqiG3EkY4qiiogac0Da0GF5mysH-gOXmavIhwvvck7J0p7lhCA','eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXJldm9jYXRpb24ifQ.eyJpYXQiOjE3OTU5MzU1ODcsImp0aSI6InQtcmV2b2tlZCIsInJlYXNvbiI6Im5vIGxvbmdlciBuZWVkZWQifQ._3uoGDWpZB6BQKOSM3B4-R1fctAtOm_bMg3rkJn5oQxFhSn-xWRT1kcpTHEsHktkcNCANwZubz-_d-pU9ok9Bw',1795935587240,1);
INSERT INTO "tickets" VALUES('t-offered','shop',1,'eyJhbGciOiJFZERTQSIsInR5cCI6ImZlZHRhc2tzLXRpY2tldCJ9.eyJhcHByb3ZhbCI6ImF1dG9tYXRpYyIsImRhdGFzZXRzIjpbeyJjb2x1bW5zIjpbImEiXSwibmFtZSI6ImxvYW5zIiwic2NoZW1hX2RpZ2VzdCI6ImU4NTU0YzIyMDhiNjhjYTQ1MGMxZjQxNmM2YjYzMzQxZmNhMzE2MDNiNTYyMWRlM2M2N2ZiMTYzY2U3ZGU2ZjgifV0sImV4cCI6MTc5NTkzOTE4NywiZmxvb3IiOnsiZmlyc3RfdHJlZSI6ImxlYWRlciIsImtleV9iaXRzIjozMDcyLCJtaW5faW50ZXJzZWN0aW9uIjoyLCJtaW5fbGVhZl9yb3dzIjo1fSwiaXNzIjoiYmFuayIsImp0aSI6InQtb2ZmZXJlZCIsImxpbWl0cyI6eyJjb25jdXJyZW50X3J1bnMiOjIsImVwb2NocyI6NSwiaWRzX2JsaW5kZWQiOjEwMDAsImlkc19ibGluZGVkX3Blcl9kYXkiOjUwMCwibG9va3VwcyI6MTAwLCJsb29rdXBzX3Blcl9kYXkiOjUwLCJydW5zIjoxMCwidHJlZXMiOjUwfSwibmJmIjoxNzk1OTM1NTc3LCJvdXRwdXRzIjp7ImFuc3dlcl9jb2x1bW5zIjpbImEiXSwiYW5zd2VycyI6ImNvbHVtbnMiLCJpbnRlcnNlY3Rpb24iOiJjbGllbnQiLCJtZXRyaWNzIjoibGVhZGVyIiwic2NvcmVzIjoiYm90aCJ9LCJwaXBlbGluZXMiOlsidHJhaW5fc3BsaXRfbm4iXSwicm9sZXMiOlsibGVhZGVyIiwiZm9sbG93ZXIiXSwic3ViIjoic2hvcCJ9.puU5sfu88fGV3u1fGCc8y4MsUktDwMdc_rIMlLX4bRiQ4SkC7c9K5aRRnI0Kb4hC3aZ15N1_fncQv3iPCJ2DDw',NULL,NULL,1795935587566,1);
CREATE TABLE uses (
	ticket_id TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	amount BIGINT NOT NULL, at_ms BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_uses PRIMARY KEY (ticket_id, run_id, kind), 
	CONSTRAINT fk_uses_ticket_id FOREIGN KEY(ticket_id) REFERENCES tickets (ticket_id)
);
INSERT INTO "uses" VALUES('t-granted','train_split_nn.2026-11-22.1','runs',1,1795935589854);
INSERT INTO "uses" VALUES('t-granted','train_split_nn.2026-11-22.1','ids_blinded',25,1795935590385);
CREATE INDEX ix_runs_pipeline_partition ON runs (pipeline, partition);
CREATE INDEX ix_runs_dag_id_dag_run_id ON runs (dag_id, dag_run_id);
CREATE INDEX ix_runs_state ON runs (state);
CREATE UNIQUE INDEX uq_runs_running_dag_run ON runs (dag_id, dag_run_id) WHERE state = 'running';
CREATE INDEX ix_tags_table_id_id ON tags (table_id, id);
CREATE INDEX ix_runs_opened_ms ON runs (opened_ms);
CREATE INDEX ix_models_run_id ON models (run_id);
CREATE UNIQUE INDEX uq_models_champion ON models (model) WHERE champion;
COMMIT;
