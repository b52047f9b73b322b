"""The verbs without a language model in sight."""

import threading

import numpy as np
import pytest
import reprise


def policy_layout():
    return reprise.Layout().recurrent("h", "f32", (3, 4)).recurrent("steps", np.int64, (1,), host=True).append("actions", "f32", (2,))


@pytest.fixture
def robot():
    robot = reprise.Execution(policy_layout(), "policy 1", lanes=4, capsules=16, max_position=512)
    robot.add_input("camera", "f32", (4,))
    robot.set_origin("h", np.arange(12).reshape(3, 4))
    return robot


def policy(step):
    h = np.tanh(step["h"] + step.input("camera"))
    step["h"] = h
    step["steps"] = step["steps"] + 1
    step.row("actions", h[0, :2])
    return float(h.sum())


def test_a_lane_goes_on_where_it_was_restored(robot):
    lane = robot.lane()
    robot.write("camera", [0.1, 0.2, 0.3, 0.4])
    for _ in range(70):  # more than one extent
        lane.step(policy)
    here = lane.snapshot()
    first = [lane.step(policy) for _ in range(10)]
    after = lane["h"]
    lane.reset()
    assert lane.position == 0 and np.array_equal(lane["h"], np.arange(12).reshape(3, 4))
    lane.restore(here)
    assert lane.position == here.position == 70 and lane["steps"][0] == 70
    assert [lane.step(policy) for _ in range(10)] == first
    assert np.array_equal(lane["h"], after) and lane.history("actions").shape == (80, 2)
    assert np.array_equal(lane.history("actions", 0, 70), here.read("actions"))


def test_forks_are_isolated(robot):
    lane = robot.lane()
    lane.step(policy)
    here = lane.snapshot()
    futures = robot.fork(here, 3)
    for i, future in enumerate(futures):
        robot.write("camera", [i] * 4)
        future.step(policy)
    assert len({future["h"].tobytes() for future in futures}) == 3
    assert np.array_equal(lane["h"], here.read("h"))
    with pytest.raises(reprise.ExhaustedError):
        robot.fork(here, 1)


def test_a_step_is_a_transaction(robot):
    lane = robot.lane()
    lane.step(policy)
    before = lane["h"].tobytes()

    def fails(step):
        step["h"] = 7
        step.row("actions", 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        lane.step(fails)
    assert lane["h"].tobytes() == before and lane.position == 1

    def wrong(step):
        with pytest.raises(ValueError):
            step["h"] = np.zeros((9, 9))
        with pytest.raises(TypeError):
            step["steps"] = 1.5  # no integer
        with pytest.raises(reprise.NotFoundError):
            step["nothing"]
        with pytest.raises(reprise.InvalidArgumentError):
            step["actions"]
        with pytest.raises(reprise.InvalidArgumentError):
            step.row("actions", 0, 5)
        with pytest.raises(reprise.InvalidArgumentError):
            step.row("h", 0)
        with pytest.raises(reprise.InvalidArgumentError):
            step.history("actions", 0, 99)
        with pytest.raises(reprise.InvalidArgumentError):
            robot.write("camera", [0] * 4)  # between steps alone
        with pytest.raises(reprise.Error):
            lane.reset()

    lane.step(wrong)
    assert lane["h"].tobytes() == before and lane.position == 2


def test_a_step_of_several_rows_sees_its_own(robot):
    lane = robot.lane()

    def step(s):
        for row in range(s.rows):
            s.row("actions", [s.position + row, 1], row)
        assert s.history("actions")[:, 0].tolist() == list(range(s.position + s.rows))

    lane.step(step, rows=5)
    lane.step(step, rows=100)
    assert lane.position == 105
    lane.step(lambda s: s.__setitem__("steps", 9), rows=0)
    assert lane["steps"][0] == 9 and lane.position == 105
    with pytest.raises(reprise.InvalidArgumentError):
        lane.step(lambda s: s.__setitem__("h", 9), rows=0)


def test_nothing_of_a_step_outlives_it(robot):
    lane = robot.lane()
    kept = []

    def keep(step):
        kept.extend([step, step["h"]])
        step["h"] = 1

    lane.step(keep)
    here = lane.snapshot()
    kept[1][...] = 99
    assert (here.read("h") == 1).all() and (lane["h"] == 1).all()
    del robot, lane
    for use in (lambda: kept[0]["h"], lambda: kept[0].position, lambda: kept[0].row("actions", 1), lambda: kept[0].history("actions")):
        with pytest.raises(reprise.InvalidArgumentError):
            use()


def test_capsules_move_as_bytes(robot):
    lane = robot.lane()
    for _ in range(3):
        lane.step(policy)
    here = lane.snapshot()
    data = here.to_bytes(b"whose")
    other = reprise.Execution(policy_layout(), "policy 1", lanes=2)
    moved = other.import_capsule(data)
    assert moved.metadata == b"whose" and other.fork(moved, 1)[0]["h"].tobytes() == lane["h"].tobytes()
    with pytest.raises(reprise.MismatchError):
        other.lane().restore(here)
    with pytest.raises(reprise.MismatchError):
        reprise.Execution(policy_layout(), "policy 2").import_capsule(data)
    for cut in range(0, len(data), 97):
        with pytest.raises(reprise.Error):
            other.import_capsule(data[:cut])


def test_ports(robot):
    image = reprise.Execution(reprise.Layout().recurrent("seen", "f32", (2,)), "eye 1")
    image.add_input("picture", "f32", (2,), port="staged", source_bytes=2, transform=lambda raw: raw.astype(np.float32) / 255)
    image.add_input("gains", "f16", (1,), port="setup")
    image.write("gains", 2)
    lane = image.lane()

    def look(step):
        step["seen"] = step.input("picture") * step.input("gains")

    image.write("picture", np.array([0, 255], np.uint8))
    lane.step(look)
    assert lane["seen"].tolist() == [0, 2]
    for wrong in (np.zeros(3, np.uint8), b""):
        with pytest.raises(reprise.InvalidArgumentError):
            image.write("picture", np.frombuffer(wrong, np.uint8))
    with pytest.raises(reprise.Error):
        image.write("gains", 3)  # sealed by the first step
    with pytest.raises(reprise.NotFoundError):
        image.write("nothing", 3)

    def broken(_):
        raise OSError("the lens is dirty")

    other = reprise.Execution(reprise.Layout().recurrent("seen", "f32", (2,)), "eye 2")
    other.add_input("picture", "f32", (2,), port="staged", source_bytes=2, transform=broken)
    with pytest.raises(OSError, match="dirty"):
        other.write("picture", np.zeros(2, np.uint8))


def test_layouts_refuse_what_cannot_be(robot):
    layout = reprise.Layout().recurrent("a", "f32", (1,))
    for name, dtype, shape in (("a", "f32", (1,)), ("b c", "f32", (1,)), ("b", "f32", (0,)), ("b", "f64", (1,)), ("b", "f32", (1 << 50,)), ("b", dict, (1,))):
        with pytest.raises(ValueError):
            layout.recurrent(name, dtype, shape)
    layout.append("b", np.dtype("float16"), (2, 3))
    assert [(s.name, s.dtype, s.shape, s.growth) for s in layout.states] == [("a", "f32", (1,), "recurrent"), ("b", "f16", (2, 3), "append")]
    for options in ({"lanes": 0}, {"lanes": -1}, {"capsules": -5}, {"max_position": 0}, {"rows": -1}):
        with pytest.raises(reprise.Error):
            reprise.Execution(layout, "x", **options)


def test_lanes_on_threads(robot):
    """Lanes step side by side, a camera writes between their steps, and one lane is for one thread."""
    lanes = [robot.lane() for _ in range(3)]
    done = threading.Event()

    def write():
        i = 0
        while not done.is_set():
            robot.write("camera", [i] * 4)
            i += 1

    errors = []

    def run(lane):
        try:
            for _ in range(100):
                lane.step(policy)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    camera = threading.Thread(target=write)
    camera.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    camera.join()
    assert not errors and [lane.position for lane in lanes] == [100] * 3

    entered, leave = threading.Event(), threading.Event()

    def wait(_):
        entered.set()
        assert leave.wait(60)

    thread = threading.Thread(target=lanes[0].step, args=(wait,))
    thread.start()
    assert entered.wait(60)
    with pytest.raises(reprise.InvalidArgumentError, match="another thread"):
        lanes[0].snapshot()
    leave.set()
    thread.join()
    assert lanes[0].position == 101
