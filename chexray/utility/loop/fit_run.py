"""One training from its first epoch, or from where it stopped, to its best weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.errors import ResourceError, RunFailed
from chexray.text import first_line
from chexray.utility.loop import stored
from chexray.utility.loop.checkpointing import CHECKPOINT, Folder
from chexray.utility.loop.epoch import InMemorySet, Optimisation, PhaseTraining, train_epoch
from chexray.utility.loop.fit_spec import Fit, Sample
from chexray.utility.loop.network import Network
from chexray.utility.loop.predict import Read, own_slice, validate
from chexray.utility.loop.stream import Stream, phase_epochs
from chexray.utility.loop.workers import Workers

if TYPE_CHECKING:
    from torch import nn

    from chexray.encoders.weights import ResolvedWeights


@dataclass
class FitRun:
    """The training of one fit, the same on every worker; worker 0 commits each epoch.

    history: a row an epoch, counted from 1 over all phases. best: {"epoch", "value", score} of the best epoch of the
    last phase so far, the earlier of equals; value is higher for better, whatever it is chosen by. kept: its weights,
    on worker 0, on the CPU.
    """

    fit: Fit
    folder: Folder
    read: Read
    workers: Workers
    say: Callable[[str], None]
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    kept: dict[str, Any] | None = None

    def run(self, device: str, weights: ResolvedWeights | None) -> Network | None:
        """The network with its best weights; as built when the recipe has no epochs. None as soon as another run is
        seen to have committed the fit."""
        state = self._stored()
        network = self._network(state, device, weights)
        counts = phase_epochs(self.fit.recipe.epochs, [phase.share for phase in self.fit.phases])
        if len(self.history) < sum(counts) and not self._ended():
            module = self._module(network)
            validation = self._load(self.fit.validation, own_slice(len(self.fit.validation), self.workers)).images
            for number in range(len(self.fit.phases)):
                first = sum(counts[:number])
                epochs = range(first, first + counts[number])
                if len(self.history) < epochs.stop:
                    training = self._phase(number, len(epochs), network, module, state)
                    if not self._train(number, epochs, training, validation):
                        return None
        if self.best is not None:
            self.folder.fill(network.model, self.workers.of_leader(self.kept) or {}, CHECKPOINT)
        return network

    def _stored(self) -> dict[str, Any] | None:
        """The state of the last committed epoch, if there is one; sets history, best and kept."""
        found = self.folder.load_state() if self.workers.leads else None
        best = found.pop("best") if found else None
        if best:
            self.kept = best["model"]
            best = {key: best[key] for key in ("epoch", "value", self.fit.head.score)}
        state, self.best = self.workers.of_leader((found, best))
        self.history = list(state["history"]) if state else []
        return state

    def _network(self, state: dict[str, Any] | None, device: str, weights: ResolvedWeights | None) -> Network:
        """The network to go on with: as of `state`, or as built."""
        network = Network.of(self.fit, None if state else weights, device, self.folder.storage)
        if state:
            self.folder.fill(network.model, state["model"], CHECKPOINT)
            network.mean, network.std = tuple(state["mean"]), tuple(state["std"])
            if self.workers.leads:  # a crash may have come between the state and its history
                self.folder.save_history(self.history)
            self.say(f"{self.fit.title}: goes on after epoch {len(self.history)}")
        elif self.workers.leads:
            self.folder.describe()
        return network

    def _module(self, network: Network) -> nn.Module:
        """What is called in a training step: the model, which several workers share."""
        import torch

        if self.workers.size == 1:
            return network.model
        return torch.nn.parallel.DistributedDataParallel(
            network.model,
            device_ids=[network.device] if network.device.type == "cuda" else None,
            broadcast_buffers=False,  # worker 0's are copied before each validation instead
        )

    def _load(self, sample: Sample, which: slice | np.ndarray) -> InMemorySet:
        """These images of a sample."""
        side = self.fit.recipe.image_size
        own = sample.take(np.arange(len(sample))[which])
        images = self.read(own.keys) if len(own) else np.empty((0, side, side), np.uint8)
        return InMemorySet(own.ids, images, self.fit.head.batch(own.labels))

    def _phase(
        self, number: int, n_epochs: int, network: Network, module: nn.Module, state: dict[str, Any] | None
    ) -> PhaseTraining:
        """A phase ready to train, from its first epoch or from where `state` was taken."""
        fit, recipe, workers = self.fit, self.fit.recipe, self.workers
        sample = fit.phases[number].sample
        per_epoch = fit.n_budget if recipe.budget == "images" else len(sample)
        if min(per_epoch, len(sample)) < workers.size:
            raise ResourceError(
                f"{fit.title}: {len(sample)} images to train on, {per_epoch} an epoch, for {workers.size} workers. "
                "Lower utility.workers, or train on more images."
            )
        stream = Stream(len(sample), per_epoch, recipe.batch_size, fit.seed, number, workers.rank, workers.size)
        data = self._load(sample, stream.share)
        loss = fit.head.loss(recipe, sample.labels, network.device)
        optimisation = Optimisation(recipe, network, stream.steps * n_epochs)
        if state and state["phase"] == number:
            try:
                stored.optimisation(state["optimisation"], optimisation.state(), optimisation.parameters)
                optimisation.restore(state["optimisation"])
            except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
                why = f"its optimiser does not fit ({first_line(error)})"
                raise self.folder.refusal(CHECKPOINT, why) from error
        return PhaseTraining(network, module, optimisation, loss, data, stream, recipe.augment, workers)

    def _train(self, number: int, epochs: range, phase: PhaseTraining, validation: np.ndarray) -> bool:
        """The epochs of a phase that are still to do, each committed. epochs: their numbers in the fit, from 0.

        False as soon as another run has committed the fit: nothing more of this one is written.
        """
        in_last = number == len(self.fit.phases) - 1
        for epoch in epochs[len(self.history) - epochs.start :]:
            if self._ended():
                return True
            start = time.perf_counter()
            row: dict[str, Any] = {"phase": number, "epoch": epoch + 1}
            row |= {"workers": self.workers.size, "images": phase.stream.per_epoch}
            row |= self._epoch(epoch - epochs.start, f"epoch {epoch + 1} of {self.fit.title}", phase, validation)
            better = in_last and self._is_best(row)
            row |= {key: row.get(key) for key in ("best_epoch", f"best_{self.fit.head.score}", "best_by")}
            row["seconds"] = self.workers.of_leader(time.perf_counter() - start)
            self.history.append(row)
            if self.workers.of_leader(self.folder.is_committed if self.workers.leads else False):
                return False
            if self.workers.leads:
                self._commit(number, phase, better)
            self.say(self._line(row))
        return True

    def _epoch(self, epoch: int, where: str, phase: PhaseTraining, validation: np.ndarray) -> dict[str, Any]:
        """Trains an epoch and validates it; what the history says of it."""
        row = train_epoch(phase, epoch, where)
        self.workers.copy_buffers(phase.network.model)
        row |= validate(phase.network, validation, self.fit.validation.labels, phase.loss, self.workers)
        if not row.pop("finite"):
            raise RunFailed(
                f"predictions are not finite after {where}. Lower utility.learning_rate, set precision: fp32 or a "
                "grad_clip such as 1.0; epochs committed before are kept."
            )
        phase.optimisation.end_epoch(row["loss"] if row["val_loss"] is None else row["val_loss"])
        return row

    def _is_best(self, row: dict[str, Any]) -> bool:
        """True when this epoch is the best so far; notes in its row which one is."""
        score = self.fit.head.score
        by, value = chosen_by(row, score, self.fit.head.better, self.fit.recipe.select)
        better = self.best is None or value > self.best["value"]
        if better:
            self.best = {"epoch": row["epoch"], "value": value, score: row[f"val_{score}"]}
        assert self.best is not None
        row |= {"best_epoch": self.best["epoch"], f"best_{score}": self.best[score], "best_by": by}
        return better

    def _ended(self) -> bool:
        """True when the recipe's patience is over."""
        patience = self.fit.recipe.patience
        return bool(patience and self.best and len(self.history) - self.best["epoch"] >= patience)

    def _commit(self, number: int, phase: PhaseTraining, better: bool) -> None:
        weights = phase.network.model.state_dict()
        if better:
            weights = self.kept = {name: value.detach().cpu().clone() for name, value in weights.items()}
        state = {
            "fit": self.fit.name, "phase": number, "model": weights,
            "best": {"model": self.kept, **self.best} if self.best else None,
            "optimisation": phase.optimisation.state(), "mean": list(phase.network.mean),
            "std": list(phase.network.std), "history": self.history,
        }  # fmt: skip
        self.folder.save_epoch(state, self.history)

    def _line(self, row: dict[str, Any]) -> str:
        name, value = self.fit.head.score, row[f"val_{self.fit.head.score}"]
        score = "undefined" if value is None else f"{value:.3f}"
        return (
            f"{self.fit.title}: epoch {row['epoch']} of {self.fit.recipe.epochs}, loss {row['loss']:.4f}, validation "
            f"{name.upper()} {score}, {row['images_per_s']:,.0f} images/s (input {row['input_images_per_s']:,.0f})"
        )


def chosen_by(row: dict[str, Any], score: str, better: str, select: str) -> tuple[str, float]:
    """What the best epoch is chosen by, and the value of this one, higher for better.

    The score of the head; the lowest loss where `select` says so or the score is undefined; the last epoch where no
    label of the validation set counts.
    """
    if select != "loss" and row[f"val_{score}"] is not None:
        value = row[f"val_{score}"]
        return score, value if better == "higher" else -value
    if row["val_loss"] is not None:
        return "loss", -row["val_loss"]
    return "last", float(row["epoch"])
