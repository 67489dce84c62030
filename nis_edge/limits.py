"""Bounds, each with its why. Every size, count, queue and time that input can drive is capped by a name from here.

A room's bounds stand under its heading; a number that is not a bound (a formula's constant, a default of the
configuration) lives where it is used.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- wire: what senders may send -------------------------------------------------------------------------------------

EVENT_BYTES_MAX: Final = 64 * KIB
"""One agent event as JSON. The contract of docs (interfaces): longer texts are refused, not cut."""

NAME_CHARS_MAX: Final = 128
"""Agent names, tool names, ids and topics: they become map keys and MQTT topic levels."""

JSON_DEPTH_MAX: Final = 32
"""Nesting of an event's free-form fields: agents nest a few levels, a bomb nests thousands."""

BATCH_EVENTS_MAX: Final = 1000
"""Events in one array or one body of JSON lines: 20 s of the busiest team we plan for (50 events/s)."""

COMMAND_BYTES_MAX: Final = 16 * KIB
"""One command: a verb and a few words."""

CORRELATION_BYTES_MAX: Final = 256
"""Correlation data that we give back: a UUID has 16 bytes, and we keep it as long as the command is remembered."""

TOPIC_BYTES_MAX: Final = 512
"""A topic somebody wants an answer on."""

RUN_BYTES_MAX: Final = 4 * MIB
"""One recorded run as one line: ten times the largest seen (61 events of up to 8 KiB)."""

RUN_EVENTS_MAX: Final = 10_000
"""Events of one recorded run: it is judged from memory."""

# --- monitor: what one judgement may hold -----------------------------------------------------------------------------

WINDOW_EVENTS_MAX: Final = 12
"""Events in a model window: at about 20 tokens each they fill the 256 positions of the smallest model."""

AGENTS_MAX: Final = 1000
"""Agents remembered at once: what a team with a forger in it may cost; further names are refused, not believed."""

AGENTS_SHOWN_MAX: Final = 64
"""Agents listed in one assessment, the worst first: it has to fit one MQTT message and one screen."""

FINDINGS_OPEN_MAX: Final = 256
"""Findings open at once; an operator reads a dozen."""

SENSORS_MAX: Final = 128
"""Distinct readings of a device: a board has a few dozen."""

CLAIM_KEYS_MAX: Final = 64
"""Quantities agents make claims about; beyond, the one not spoken of for longest is forgotten."""

CLAIMANTS_MAX: Final = 8
"""Agents whose claims on one quantity are compared: every pair is."""

OPEN_CONFIDENCES_MAX: Final = 512
"""Statements with a confidence that wait for their outcome; the oldest are forgotten."""

WINDOW_TEXT_CHARS_MAX: Final = 8 * KIB
"""Characters of one event's text a window keeps: room for a long tool result, while evidence stays cheap to compute."""

# --- pack: what a model package may claim before anything of it is used -----------------------------------------------

PACK_HEADER_BYTES_MAX: Final = 16 * MIB
"""The header of a package: a thousand layers need about 1 MiB; safetensors' own reader stops at 100 MB."""

PACK_TENSORS_MAX: Final = 65_536
"""Tensors of one package, padding included; 1024 layers with all their parts need about 25 000."""

PACK_NAME_CHARS_MAX: Final = 128
"""A tensor's name: the longest of ours is a task head's name (64) plus a layer and a part."""

PACK_JSON_DEPTH_MAX: Final = 32
"""Nesting of the JSON in a header: ours needs 5; a parser's stack must not be driven by a file."""

PACK_DIMENSION_MAX: Final = 1 << 24
"""One side of a matrix. Rows of 2**24 ternary weights times int8 stay below 2**31, so int32 sums never overflow."""

PACK_LAYERS_MAX: Final = 1024
"""Layers of the trunk and of all task heads together."""

PACK_OUTPUTS_MAX: Final = 4096
"""Outputs of one task head, labels of a package, and task heads of a package."""

PACK_CONTEXT_MAX: Final = 1 << 20
"""Positions: the KV cache is sized from it, so a file must not ask for an absurd one."""

PACK_GOLDENS_MAX: Final = 64
"""Golden self-tests of one package; each costs a forward pass at verification."""

PACK_GOLDEN_TOKENS_MAX: Final = 4096
"""Tokens of one golden self-test."""

PACK_TOKENIZER_BYTES_MAX: Final = 64 * MIB
"""A tokenizer.json; the largest public ones are about 35 MB."""

PACK_TABLES_BYTES_MAX: Final = 64 * MIB
"""Tables of a judge of evidence; the shipped ones have two, with an encoder of sentences twenty-five."""

PACK_ENCODER_GRAPH_BYTES_MAX: Final = 48 * MIB
"""The graph of an encoder of sentences; MiniLM's six layers have 22 in signed bytes."""

PACK_ENCODER_TOKENIZER_BYTES_MAX: Final = 4 * MIB
"""Its word pieces as JSON; 30,000 of them have half a MiB."""

PACK_ENCODER_PIECES_MAX: Final = 512
"""Pieces of one text that an encoder may ask for: its time grows with them, and such models know no more positions."""

PACK_CHECK_AT_OPEN_BYTES_MAX: Final = 16 * MIB
"""Packages up to this size are hashed whole whenever they are opened (below 0.2 s at 100 MB/s, a Cortex-A72 without
SHA instructions); larger ones only by `verify` and by the trial of an update."""

PACK_CHUNK_BYTES: Final = 4 * MIB
"""How much is hashed, scanned, converted or written at a time, so that packing needs little memory."""

PACK_SCREEN_COLUMNS_MIN: Final = 8
PACK_SCREEN_COLUMNS_MAX: Final = 1 << 16
"""Width of a head that can have a screen: nis_edge/native/screen.h bounds its sums by them."""

PACK_STOP_TOKENS_MAX: Final = 64
"""Tokens that end a text; public models name up to five."""

CHECKPOINT_JSON_BYTES_MAX: Final = 16 * MIB
"""config.json and the shard index of a checkpoint folder."""

CHECKPOINT_SHARDS_MAX: Final = 1024
"""Files of a sharded checkpoint."""

GGUF_HEADER_BYTES_MAX: Final = 256 * MIB
"""Keys and tensor table of a GGUF file: a vocabulary of 256 000 tokens with its merges takes about 12 MiB."""

GGUF_KEYS_MAX: Final = 4096
"""Keys of a GGUF file; converters write some dozens."""

GGUF_NAME_BYTES_MAX: Final = 64 * KIB
"""A key's or a tensor's name: what the format itself allows."""

GGUF_TEXT_BYTES_MAX: Final = 4 * MIB
"""One text of a GGUF file: chat templates reach some 50 KiB."""

GGUF_ARRAY_ITEMS_MAX: Final = 1 << 22
"""Items of one list of a GGUF file: sixteen times the largest public vocabulary."""

TOKENIZER_PIECE_CHARS_MAX: Final = 512
"""Characters of one sentencepiece token; every way to cut it in two is looked at."""

CHAT_TEMPLATE_CHARS_MAX: Final = 256 * KIB
"""A chat template; the longest public ones are about 50 KiB."""

# --- power: board files and sensors ----------------------------------------------------------------------------------

BOARD_FILE_BYTES_MAX: Final = 64 * KIB
"""One board file; the largest that ships is under 5 KiB."""

BOARD_FILES_MAX: Final = 64
"""Board files read from one folder."""

BOARD_SOURCES_MAX: Final = 16
"""Sources in one board file."""

BOARD_RAILS_MAX: Final = 64
"""Rails of one source; the Pi 5 power chip has the most of those known, 12."""

SENSOR_FILE_BYTES_MAX: Final = 4 * KIB
"""One sysfs attribute: the kernel gives at most a page. Also the longest answer of the Pi's firmware."""

SENSOR_DIRECTORIES_MAX: Final = 256
"""hwmon, powercap or power_supply entries looked at; a large server has some dozens."""

BENCH_RUNS_MAX: Final = 2_000_000
"""Runs of one workload in a benchmark; their durations are kept, 16 MB at most."""

BENCH_RESULT_BYTES_MAX: Final = 4 << 20
"""A result file of a benchmark that is read back; one has about 60 KB."""

METER_SAMPLES_MAX: Final = 600_000
"""Power readings kept for one benchmark: ten minutes at 1000 per second."""

# --- update: what a publisher, a broker or a bucket may send --------------------------------------------------------

UPDATE_DENIED_MAX: Final = 6
"""Failed models remembered. A record of the journal is 4 KiB; six entries of at most 220 bytes fit beside the rest."""

UPDATE_ROLES_MAX: Final = 10
"""Metadata roles with a version floor: four top-level ones and a few delegations; bounded by the 4 KiB record."""

UPDATE_KEYS_MAX: Final = 6
"""Keys remembered beside a version floor; the online roles they belong to have one or two."""

UPDATE_TRIES: Final = 3
"""Runs of the self-test and starts under probation that one model gets before rollback (as U-Boot's bootlimit)."""

UPDATE_TRANSITIONS_MAX: Final = 28
"""State changes one update may take: the cap Mender puts on its own client, for the same reason (endless loops)."""

UPDATE_BUNDLE_BYTES_MAX: Final = 256 * KIB
"""One retained MQTT bundle. A whole metadata chain is under 8 KiB; brokers commonly refuse more than 256 KiB."""

UPDATE_BUNDLE_FILES_MAX: Final = 64
"""Files in a bundle: a chain of root versions, three top-level roles, a few delegations and rollout documents."""

UPDATE_DOCUMENT_BYTES_MAX: Final = 16 * KIB
"""One signed rollout document: a dozen short fields."""

UPDATE_MODEL_BYTES_MAX: Final = 5 * GIB
"""One model package: the project's own gate (a model < 5 GB), so that signed nonsense cannot fill a disk."""

UPDATE_METADATA_SECONDS_MAX: Final = 60.0
"""One metadata file, from request to last byte. They are a few KiB; a slower server is a stalled one."""

UPDATE_STALL_SECONDS_MAX: Final = 30.0
"""Silence on a download after which the attempt ends and is resumed later."""

UPDATE_RATE_BYTES_PER_S_MIN: Final = 256
"""A download slower than this over a whole stall window is ended (slow-loris); 2G links give 20 times as much."""

UPDATE_ATTEMPTS_MAX: Final = 5
"""Attempts to complete one download before the update goes back to idle until the next poll."""

UPDATE_SELFTEST_SECONDS_MAX: Final = 120.0
"""Wall time of one self-test; the shipped model takes a second, a 5 GB one on a Pi mostly reads its file."""

UPDATE_SELFTEST_OUTPUT_BYTES_MAX: Final = 64 * KIB
"""What a self-test may print; its report is one JSON object."""

UPDATE_RESERVE_BYTES: Final = 32 * MIB
"""Disk left free beside a download, for the spool, the journal and the system's own logs."""

UPDATE_BLOCK_BYTES_MIN: Final = 16 * KIB
UPDATE_BLOCK_BYTES_MAX: Final = 64 * KIB
"""One block over MQTT: small enough for any broker's default, large enough that its header is nothing."""

UPDATE_BLOCK_WINDOW_MAX: Final = 8
"""Blocks one request may bring: at most 512 KiB under way to a device."""

UPDATE_BLOCK_BITMAP_BYTES_MAX: Final = 256
"""Bitmap of a block request: 2048 blocks from its first one on."""

UPDATE_BLOCK_LIST_BYTES_MAX: Final = 12 * MIB
"""A block list: 32 bytes a block; 5 GiB in 16 KiB blocks are 10 MiB of it."""

UPDATE_DELTAS_MAX: Final = 8
"""Deltas signed beside one model: the last few releases."""

UPDATE_DELTA_SEGMENTS_MAX: Final = 8192
"""Places at which a delta lines up again with its base: one for each tensor, and a few."""

UPDATE_SHADOW_SECONDS_MAX: Final = 7 * 86400.0
"""Longest time a candidate judges beside the running model."""

UPDATE_SPREAD_SECONDS_MAX: Final = 14 * 86400
"""Longest time over which a rollout spreads its starts."""

UPDATE_REPORT_BYTES_MAX: Final = 8 * KIB
"""One signed device report: two dozen short fields."""

UPDATE_AUDIT_LINE_BYTES_MAX: Final = 4 * KIB
"""One line of the audit trail: an event with a few fields."""

UPDATE_AUDIT_BYTES_MAX: Final = 256 * KIB
UPDATE_AUDIT_SEGMENTS: Final = 3
"""The trail: the present segment and three older ones, about 3000 entries; years of a quiet device."""

UPDATE_SHADOW_LINE_BYTES_MAX: Final = 2 * MIB
"""One window to a candidate that judges beside the running model: its events' texts and a goal, escaped; mostly a few
KiB."""

UPDATE_MEMORY_SLACK_BYTES: Final = 64 * MIB
"""Memory left free beside two models; with less the running one is unloaded for the self-test, and that is said."""

# --- roof and telemetry: queues, the spool, the local API -------------------------------------------------------------

CONFIG_BYTES_MAX: Final = 256 * KIB
"""A configuration file; the documented example with every option is under 8 KiB."""

INBOX_LANES_MAX: Final = 256
"""Senders with their own queue at one time. Further ones share a single queue, so made-up names cannot take memory."""

INBOX_LANE_ITEMS_MAX: Final = 64
"""Events of one sender that wait. At the drain rate below a fair sender never has more than a few waiting."""

INBOX_BYTES_MAX: Final = 8 * MIB
"""All events that wait, together: 128 of the largest allowed ones."""

INBOX_DRAIN_MAX: Final = 256
"""Events judged in one step, taken in turn from every sender, so that a step stays short whatever comes in."""

SHED_WAITING: Final = 64
"""Events left waiting after a full step: the monitor falls behind. The model is then not asked until none waits."""

SHED_AGE_SECONDS: Final = 0.1
"""An event that waited longer before its step began: the same. Twice the promised latency."""

SPOOL_RECORD_BYTES_MAX: Final = 256 * KIB
"""One record. Brokers commonly refuse more than this; the largest assessment seen is under 32 KiB."""

SPOOL_READ_BYTES_MAX: Final = MIB
"""Payloads read ahead of sending at one time."""

SPOOL_PARKED_MAX: Final = 1000
"""Records that a broker refused for good, kept for a person to look at; the oldest makes room."""

SPOOL_DAMAGED_KEPT_MAX: Final = 3
"""Damaged spool files set aside; the oldest makes room, so that a dying card does not fill itself."""

MQTT_PACKET_BYTES_MAX: Final = 512 * KIB
"""Maximum Packet Size that we tell the broker: the largest update bundle with its properties fits twice."""

MQTT_CONNECT_SECONDS_MAX: Final = 10.0
"""TCP, TLS and CONNACK each; a broker that is slower is called out of reach and tried again."""

MQTT_INCOMING_MAX: Final = 256
"""Update notices that wait for their loop; the oldest is dropped, as only the newest matters."""

API_CONNECTIONS_MAX: Final = 32
"""Connections at one time; one more is answered 503 and closed."""

API_FOLLOWERS_MAX: Final = 8
"""Connections that follow the assessments as server-sent events; each holds one of the above for long."""

API_HEADER_BYTES_MAX: Final = 16 * KIB
"""Request line and headers."""

API_BODY_BYTES_MAX: Final = 1 * MIB
"""One request's body: 16 of the largest events, or thousands of ordinary ones."""

API_REQUEST_SECONDS_MAX: Final = 10.0
"""From the first byte of a request to its last, and for the peer to take the answer."""

API_IDLE_SECONDS_MAX: Final = 60.0
"""A kept-alive connection without a request."""

LOOP_RESTARTS_MAX: Final = 5
"""Failures of one loop within ``LOOP_WINDOW_SECONDS`` before the daemon gives up and its service manager acts."""

LOOP_WINDOW_SECONDS: Final = 300.0
"""The same window as systemd's StartLimitIntervalSec in our unit."""

ASSESSMENTS_KEPT: Final = 100
"""Newest assessments that the local API shows; about 400 KB."""

EXCERPTS_KEPT: Final = 1000
"""Newest events whose words can still be shown as evidence; about 200 KB."""

FOLLOWER_ITEMS_MAX: Final = 64
"""Assessments that wait for one slow follower; the oldest is dropped, as a live view wants the newest."""

LATENCIES_KEPT: Final = 2048
"""Newest latencies from which percentiles are taken: the p99 then rests on twenty values."""

DEMO_LINE_BYTES_MAX: Final = 64 * KIB
"""One line of the demo's script: one event."""

STATUS_BYTES_MAX: Final = 4 * MIB
"""What `nis-edge status` reads of an answer."""

COMMANDS_WAITING_MAX: Final = 32
"""Commands that came and are not begun; a person sends one at a time, a program a few."""

COMMANDS_AT_ONCE_MAX: Final = 4
"""Commands under way: an update may take minutes, and a ping must not wait for it."""

COMMANDS_BURST: Final = 30
COMMANDS_PER_SECOND: Final = 2.0
"""Whoever may send commands must not fill the spool with the answers to them: a burst, then this rate."""

COMMAND_KEYS_MAX: Final = 4096
"""Idempotency keys remembered."""

COMMAND_KEY_SECONDS_MAX: Final = 8 * 86400.0
"""For how long: a day longer than a broker keeps our session, from which a command could come a second time."""

DESIRED_BYTES_MAX: Final = 64 * KIB
"""A configuration that is sent to us; the whole of ours has a few hundred bytes."""
