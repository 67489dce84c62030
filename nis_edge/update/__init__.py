"""Updates, judged: which offer to take, what state a trial is in, what the journal says. Pure; bytes in, values out.

Trust in metadata is `adapters.tuf_client`, bytes over the network `adapters.download`, bytes on the disk
`adapters.slot_store`; `updating` on the roof drives the table of `machine` with them.
"""
