-- nas_* tables as version 0.1.0 (schema 1) wrote them; one evaluation is there twice, which that schema allowed
BEGIN TRANSACTION;
CREATE TABLE nas_blocks (
	id INTEGER NOT NULL, 
	context VARCHAR(255) NOT NULL, 
	block VARCHAR(32) NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE nas_evaluations (
	id INTEGER NOT NULL, 
	study VARCHAR(255) NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	wall_s FLOAT NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "nas_evaluations" VALUES(1,'first','52fd9ea3d7a2','complete',0.5,'{"key": "52fd9ea3d7a2", "candidate": {"encoder": "conv-micro", "resolution": 64, "projector": "linear", "compression": "none", "compression_factor": 1, "lm": "llama-micro", "lm_depth": 1, "lm_layers": "uniform"}, "status": "complete", "quality": {"value": 5.872808383313934e-07, "low": 1.1856995634409073e-07, "high": 2.908821034481341e-06, "label": "predicted:prior"}, "latency": {"raspberry-pi-5-8gb": {"preprocess_ms": 1.0, "vision_ms": 1.0, "projector_ms": 0.5, "prefill_ms": 0.5, "tpot_ms": 1.0, "new_tokens": 8, "label": "composed", "low_ms": 9.0, "high_ms": 11.0, "extrapolated": false}}, "cost": {"encoder_params": 47008, "projector_params": 2112, "lm_body_params": 49344, "embedding_params": 16896, "vision_flops": 6246656, "projector_flops": 65536, "prefill_flops": 3441664, "decode_flops": 142336, "grid_tokens": 16, "visual_tokens": 16, "weight_bytes": 461440, "kv_bytes": 10240, "activation_bytes": 262144}, "proxies": {"params": {"value": 115360.0, "seconds": 0.1, "reason": null}, "synflow": {"value": null, "seconds": 0.1, "reason": "no <gradient>"}}, "violations": {}, "wall_s": 0.5, "error": null, "traceback": null}');
INSERT INTO "nas_evaluations" VALUES(2,'first','0b9b7f807b61','complete',0.5,'{"key": "0b9b7f807b61", "candidate": {"encoder": "conv-micro", "resolution": 96, "projector": "pixel-shuffle", "compression": "pixel-shuffle", "compression_factor": 4, "lm": "llama-micro", "lm_depth": 6, "lm_layers": "uniform"}, "status": "complete", "quality": {"value": 2.6888688203015643e-05, "low": 5.428732521632824e-06, "high": 0.00013318054451898683, "label": "predicted:prior"}, "latency": {"raspberry-pi-5-8gb": {"preprocess_ms": 2.0, "vision_ms": 2.0, "projector_ms": 1.0, "prefill_ms": 1.0, "tpot_ms": 2.0, "new_tokens": 8, "label": "composed", "low_ms": 18.0, "high_ms": 22.0, "extrapolated": false}}, "cost": {"encoder_params": 47008, "projector_params": 12672, "lm_body_params": 295744, "embedding_params": 16896, "vision_flops": 14054976, "projector_flops": 221184, "prefill_flops": 15739392, "decode_flops": 674304, "grid_tokens": 36, "visual_tokens": 9, "weight_bytes": 1489280, "kv_bytes": 50688, "activation_bytes": 589824}, "proxies": {"params": {"value": 372320.0, "seconds": 0.1, "reason": null}, "synflow": {"value": null, "seconds": 0.1, "reason": "no <gradient>"}}, "violations": {}, "wall_s": 0.5, "error": null, "traceback": null}');
INSERT INTO "nas_evaluations" VALUES(3,'first','b726ed10672e','complete',0.5,'{"key": "b726ed10672e", "candidate": {"encoder": "vit-micro", "resolution": 64, "projector": "ldp-v2", "compression": "none", "compression_factor": 1, "lm": "llama-micro", "lm_depth": 6, "lm_layers": "uniform"}, "status": "complete", "quality": {"value": 2.0863533564278257e-05, "low": 4.212274779692403e-06, "high": 0.00010333775823132593, "label": "predicted:prior"}, "latency": {"raspberry-pi-5-8gb": {"preprocess_ms": 3.0, "vision_ms": 3.0, "projector_ms": 1.5, "prefill_ms": 1.5, "tpot_ms": 3.0, "new_tokens": 8, "label": "composed", "low_ms": 27.0, "high_ms": 33.0, "extrapolated": false}}, "cost": {"encoder_params": 150464, "projector_params": 8960, "lm_body_params": 295744, "embedding_params": 16896, "vision_flops": 5063168, "projector_flops": 280576, "prefill_flops": 20481024, "decode_flops": 685056, "grid_tokens": 16, "visual_tokens": 16, "weight_bytes": 1888256, "kv_bytes": 61440, "activation_bytes": 91168}, "proxies": {"params": {"value": 472064.0, "seconds": 0.1, "reason": null}, "synflow": {"value": null, "seconds": 0.1, "reason": "no <gradient>"}}, "violations": {}, "wall_s": 0.5, "error": null, "traceback": null}');
INSERT INTO "nas_evaluations" VALUES(4,'first','c280b435a444','failed',0.1,'{"key": "c280b435a444", "candidate": {"encoder": "vit-micro", "resolution": 112, "projector": "ldp-v2", "compression": "avgpool", "compression_factor": 49, "lm": "llama-micro", "lm_depth": 6, "lm_layers": "uniform"}, "status": "failed", "quality": null, "latency": {}, "cost": null, "proxies": {}, "violations": {}, "wall_s": 0.1, "error": "it broke", "traceback": "Traceback"}');
INSERT INTO "nas_evaluations" VALUES(5,'first','0b9b7f807b61','complete',0.5,'{"key": "0b9b7f807b61", "candidate": {"encoder": "conv-micro", "resolution": 96, "projector": "pixel-shuffle", "compression": "pixel-shuffle", "compression_factor": 4, "lm": "llama-micro", "lm_depth": 6, "lm_layers": "uniform"}, "status": "complete", "quality": {"value": 2.6888688203015643e-05, "low": 5.428732521632824e-06, "high": 0.00013318054451898683, "label": "predicted:prior"}, "latency": {"raspberry-pi-5-8gb": {"preprocess_ms": 2.0, "vision_ms": 2.0, "projector_ms": 1.0, "prefill_ms": 1.0, "tpot_ms": 2.0, "new_tokens": 8, "label": "composed", "low_ms": 18.0, "high_ms": 22.0, "extrapolated": false}}, "cost": {"encoder_params": 47008, "projector_params": 12672, "lm_body_params": 295744, "embedding_params": 16896, "vision_flops": 14054976, "projector_flops": 221184, "prefill_flops": 15739392, "decode_flops": 674304, "grid_tokens": 36, "visual_tokens": 9, "weight_bytes": 1489280, "kv_bytes": 50688, "activation_bytes": 589824}, "proxies": {"params": {"value": 372320.0, "seconds": 0.1, "reason": null}, "synflow": {"value": null, "seconds": 0.1, "reason": "no <gradient>"}}, "violations": {}, "wall_s": 0.5, "error": null, "traceback": null}');
CREATE TABLE nas_measurements (
	id INTEGER NOT NULL, 
	study VARCHAR(255) NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	device VARCHAR(255) NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "nas_measurements" VALUES(1,'first','52fd9ea3d7a2','raspberry-pi-5-8gb','{"key": "52fd9ea3d7a2", "device": "raspberry-pi-5-8gb", "latency": {"preprocess_ms": 1.0, "vision_ms": 1.0, "projector_ms": 0.5, "prefill_ms": 0.5, "tpot_ms": 1.0, "new_tokens": 8, "label": "measured", "low_ms": 9.0, "high_ms": 11.0, "extrapolated": false}, "totals_ms": [10.0]}');
CREATE TABLE nas_meta (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "nas_meta" VALUES('schema','1');
INSERT INTO "nas_meta" VALUES('wall_s:first','75.0');
INSERT INTO "nas_meta" VALUES('anchors:first','[]');
CREATE TABLE nas_trainings (
	id INTEGER NOT NULL, 
	study VARCHAR(255) NOT NULL, 
	"key" VARCHAR(32) NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "nas_trainings" VALUES(1,'first','52fd9ea3d7a2','{"key": "52fd9ea3d7a2", "label": "trained:short", "data": "easy-vqa", "seed": 0, "steps": 100, "samples_seen": 3200, "train_s": 12.0, "accuracy_open": 0.6, "blind_open": 0.2, "accuracy_all": 0.6, "blind_all": 0.6, "open_questions": 400, "low": 0.57, "high": 0.63, "losses": [[50, 1.5], [100, 0.5]], "checkpoint": "finalists/52fd9ea3d7a2"}');
CREATE INDEX ix_nas_evaluations_study ON nas_evaluations (study);
CREATE INDEX ix_nas_blocks_context ON nas_blocks (context);
CREATE INDEX ix_nas_trainings_study ON nas_trainings (study);
CREATE INDEX ix_nas_measurements_study ON nas_measurements (study);
COMMIT;
