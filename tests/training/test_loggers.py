"""Histories, logs and progress bars."""

import csv
from contextlib import suppress

import pytest
from trainer_cases import Net, dataset, loss, net, phase, run

from explainkit.errors import InputError, TrainingError
from explainkit.training import Trainer
from explainkit.training.loggers import CSVLogger, TensorBoardLogger


def test_history_tells_each_epoch():
    _, trainer = run(phase("warm", epochs=2), phase("joint", lr={"head": 0.1}))

    assert [(epoch.phase, epoch.epoch) for epoch in trainer.history] == [
        ("warm", 1),
        ("warm", 2),
        ("joint", 1),
    ]
    for epoch in trainer.history:
        assert set(epoch.train_losses) == {"entropy"} and 0 <= epoch.val_accuracy <= 1 and epoch.seconds > 0


def test_terms_are_means_over_the_epoch():
    steps = iter([1.0, 2.0, 3.0, 6.0])

    def counted(network, batch, step):
        return {"counted": network(batch.images).sum() * 0 + next(steps)}

    _, trainer = run(phase(loss=counted))

    assert trainer.history[0].train_losses["counted"] == pytest.approx(3)


def test_the_log_is_always_a_whole_file(tmp_path):
    logger = CSVLogger(tmp_path / "run")
    wholes = []

    class Watching:
        def log(self, epoch):
            with logger.path.open() as file:
                wholes.append(list(csv.DictReader(file)))

        def close(self):
            wholes.append("closed")

    def two(network, batch, step):
        return loss(network, batch, step) | {"cluster": network(batch.images).sum() * 0}

    run(phase("warm", epochs=2), phase("joint", loss=two), loggers=[logger, Watching()])

    assert [len(rows) for rows in wholes[:3]] == [1, 2, 3] and wholes[3] == "closed"
    last = wholes[2]
    assert [row["phase"] for row in last] == ["warm", "warm", "joint"]
    assert last[0]["train/cluster"] == "" and float(last[2]["train/cluster"]) == 0
    assert [path.name for path in logger.path.parent.iterdir()] == ["log.csv"]


def test_loggers_are_closed_when_training_fails():
    closed = []

    class Watching:
        def log(self, epoch):
            pass

        def close(self):
            closed.append(True)

    with suppress(TrainingError):
        run(phase(lr={"nothing": 1}), loggers=[Watching()])

    assert closed == [True]


def test_a_log_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="folder for logs"):
        CSVLogger(tmp_path / "file" / "run")


def test_progress_is_silent_where_there_is_no_terminal(capfd):
    run(phase(epochs=2))
    Trainer(device="cpu").run(net(), dataset(), [phase()])

    assert capfd.readouterr() == ("", "")


def test_progress_shows_phase_and_terms(capfd):
    Trainer(device="cpu", progress=True).run(net(), dataset(), [phase("warm")])

    assert "warm" in capfd.readouterr().err


def test_tensorboard_is_given_every_figure_once_though_the_run_is_resumed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Trainer(device="cpu", progress=False, loggers=[TensorBoardLogger(tmp_path / "tb")])
    first.run(Net(), dataset(), [phase(epochs=2)])
    again = Trainer(device="cpu", progress=False, loggers=[TensorBoardLogger(tmp_path / "tb")])
    again.run(Net(), dataset(), [phase(epochs=3)])

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    accuracies = events.Scalars("validation/accuracy")

    assert [event.step for event in accuracies] == [1, 2, 3]
    assert [event.value for event in accuracies] == pytest.approx([e.val_accuracy for e in again.history])
