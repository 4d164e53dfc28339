"""Prints what TensorBoard's EventAccumulator reads from a folder, as JSON."""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0}).Reload()
scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
print(json.dumps({
    "scalars": {tag: [[event.step, event.value] for event in values] for tag, values in scalars.items()},
    "texts": texts,
    "wall_time": next(iter(scalars.values()))[0].wall_time,
}, separators=(",", ":")))
