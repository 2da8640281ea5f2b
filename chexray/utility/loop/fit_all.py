"""Trains networks one after another and scores sets with them; every epoch is committed and every fit resumes.

The same code runs alone and in a process group of several workers, where DistributedDataParallel averages gradients.
On one CPU worker a resumed fit has the same bits as an undisturbed one. Images of a share, uint8, must fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.encoders.fields import parse_json
from chexray.errors import ResourceError, RunFailed
from chexray.storage import Storage
from chexray.utility.loop import stored
from chexray.utility.loop.checkpointing import MODEL, Folder, predictions_name
from chexray.utility.loop.fit_run import FitRun
from chexray.utility.loop.fit_spec import Fit
from chexray.utility.loop.loading import rate
from chexray.utility.loop.network import Network, arithmetic
from chexray.utility.loop.predict import Read, predict_keys
from chexray.utility.loop.workers import Workers

if TYPE_CHECKING:
    from chexray.encoders.weights import ResolvedWeights


def run_fits(
    fits: Sequence[Fit],
    read: Read,
    folder_of: Callable[[Fit], str],
    storage: Storage,
    *,
    device: str,
    threads: int,
    weights: ResolvedWeights | None,
    say: Callable[[str], None],
    attempt: str = "",
) -> list[dict[str, Any]]:
    """Brings every fit to its committed model with predictions of all its sets; one summary each, on every worker.

    read: image_keys (n,) -> images (n, side, side) uint8. folder_of: where a fit is kept. weights: those of the recipe,
    the same for all fits. threads: CPU threads of this worker. say: progress, one line, called on worker 0. attempt: as
    in `Folder`.
    A fit that is committed and has its predictions costs one look at its folder. Collective: all workers of the process
    group call it with equal fits. A summary holds title, name, epochs, best_epoch,
    best_<score of the head>, best_by, images_per_s, input_images_per_s and seconds.

    A fit whose loss is no longer finite is noted in its folder, its summary holds `failed`, and the next is trained.
    Raises WeightsError for a stored state that does not fit, ResourceError when memory runs out or there are more
    workers than images.
    """
    workers = Workers.here()
    tell = say if workers.leads else _silence
    summaries = []
    with arithmetic(device, threads):
        for fit in fits:
            folder = Folder(folder_of(fit), fit, storage, attempt)
            try:
                rows = _complete(fit, folder, read, workers, device, weights, tell)
            except RunFailed as error:  # of numbers that are not finite, met by every worker at the same step
                if workers.leads:
                    folder.fail(str(error))
                tell(str(error))
                summaries.append({"title": fit.title, "name": fit.name, "failed": str(error)})
                continue
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                recipe = fit.recipe
                raise ResourceError(
                    f"{fit.title}: out of memory on {device}. Lower utility.batch_size ({recipe.batch_size}) or "
                    f"image_size ({recipe.image_size}), or take a smaller utility.model than {recipe.model}."
                ) from error
            summaries.append(_summary(fit, rows))
    return summaries


def _complete(
    fit: Fit,
    folder: Folder,
    read: Read,
    workers: Workers,
    device: str,
    weights: ResolvedWeights | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Trains, commits and scores what is missing of a fit; its history."""
    sets = {predictions_name(keys): keys for keys in fit.score.values()}
    if not workers.of_leader(folder.is_committed if workers.leads else False):
        training = FitRun(fit, folder, read, workers, say)
        network = training.run(device, weights)
        first = False
        if network is not None and workers.leads:
            best_epoch = training.best["epoch"] if training.best else None
            first = folder.commit(network.model.state_dict(), _about(fit, network, best_epoch), training.history)
        if workers.of_leader(first) and network is not None:
            # Predictions that are there are of a run of 0.1.0 that was interrupted before it committed its weights.
            _score(sets, network, folder, read, workers)
            return training.history
        say(f"{fit.title}: another run has trained it meanwhile; its weights are used")
    if workers.leads:
        folder.tidy()
    history, there = workers.of_leader((folder.history(), folder.holds(*sets)) if workers.leads else ([], []))
    missing = {name: keys for (name, keys), found in zip(sets.items(), there, strict=True) if not found}
    if missing:
        _score(missing, _committed(fit, folder, workers, device), folder, read, workers, new=True)
    return history


def _score(
    sets: dict[str, np.ndarray], network: Network, folder: Folder, read: Read, workers: Workers, *, new: bool = False
) -> None:
    for keys in sets.values():
        predicted = predict_keys(network, keys, read, workers)
        if predicted is not None:
            folder.write_predictions(keys, predicted, new=new)
    workers.of_leader(None)  # nobody goes on before the last is written


def _committed(fit: Fit, folder: Folder, workers: Workers, device: str) -> Network:
    """The network of a fit with its final weights."""
    network = Network.of(fit, None, device, folder.storage)
    state, about = workers.of_leader(folder.load_model() if workers.leads else ({}, {}))
    folder.fill(network.model, state, MODEL)
    try:
        said = [parse_json(about.get(key, "").encode()) for key in ("mean", "std")]
        network.mean, network.std = stored.mean_std(*said)
    except ValueError as error:
        raise folder.refusal(MODEL, "it does not say how to normalise images") from error
    return network


def _about(fit: Fit, network: Network, best_epoch: int | None) -> dict[str, str]:
    """The metadata of the final weights; mean and std are for whoever starts another fit from them."""
    values = {
        "recipe": asdict(fit.recipe),
        "seed": fit.seed,
        "best_epoch": best_epoch,
        "mean": network.mean,
        "std": network.std,
    }
    return {"title": fit.title, "fit": fit.name, **{key: json.dumps(value) for key, value in values.items()}}


def _summary(fit: Fit, history: list[dict[str, Any]]) -> dict[str, Any]:
    last = history[-1] if history else {}
    images = sum(row["images"] for row in history)
    spent = {key: sum(row["images"] / row[key] for row in history if row[key]) for key in stored.RATES}
    return {
        "title": fit.title,
        "name": fit.name,
        "epochs": len(history),
        **{key: last.get(key) for key in ("best_epoch", f"best_{fit.head.score}", "best_by")},
        **{key: rate(images, seconds) for key, seconds in spent.items()},
        "seconds": sum(row["seconds"] for row in history),
    }


def _out_of_memory(error: BaseException) -> bool:
    """CUDA says "out of memory"; torch on a CPU "can't allocate memory"."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def _silence(_: str) -> None:
    """What the workers say that do not lead."""
