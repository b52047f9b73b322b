"""A toy world and the policy that acts in it: what a robot gets from Reprise, without a language model.

The policy looks ahead: at a decision it takes a capsule, plays one future for each action out from there, and goes on with the best. No future shows
in another.
"""

import functools

import numpy as np

import reprise

ACTIONS = (-1.0, 0.0, 1.0)

layout = reprise.Layout()
layout.recurrent("world", np.float32, (2,))  # position, velocity
layout.recurrent("noise", np.int64, (1,), host=True)  # the generator of the wind
layout.append("trace", np.float32, (2,))  # position and action at each step
simulator = reprise.Execution(layout, "toy-simulator 1", lanes=4, capsules=32, max_position=4096)
simulator.add_input("goal", np.float32, (1,))
simulator.write("goal", 1.0)


def tick(action: float, step: reprise.Step) -> float:
    """One tick: the action, the wind, the physics; the trace remembers it. Returns how far the goal is."""
    position, velocity = (float(x) for x in step["world"])
    noise = int(step["noise"][0]) * 1103515245 + 12345 & 0x7FFFFFFF
    velocity = 0.95 * velocity + 0.1 * action + 0.02 * (noise / 0x7FFFFFFF - 0.5)
    position += 0.1 * velocity
    step["world"] = [position, velocity]
    step["noise"] = noise
    step.row("trace", [position, action])
    return abs(position - float(step.input("goal")[0]))


lane = simulator.lane()
futures = [simulator.lane() for _ in ACTIONS]
for decision in range(12):
    here = lane.snapshot()
    distances = []
    for action, future in zip(ACTIONS, futures):
        future.restore(here)
        distances.append(sum(future.step(functools.partial(tick, action)) for _ in range(20)))
    best = ACTIONS[int(np.argmin(distances))]
    for _ in range(10):
        lane.step(functools.partial(tick, best))
    print(f"decision {decision + 1:2}: {best:+.0f}, at {float(lane['world'][0]):.3f}")
print(f"{lane.position} ticks; the last five positions: {np.round(lane.history('trace', lane.position - 5)[:, 0], 3).tolist()}")
