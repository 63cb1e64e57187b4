"""Models come and go while others are served.

A version is opened, proven and measured in a process of its own, then by every worker, and has run there before any
request reaches it. What is in progress ends on the version it began with. A version that fails in any of this never
answers, and says why; one that was served before goes on. Memory goes back because workers are replaced by others that
do not have the model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Request
from prometheus_client import CollectorRegistry
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError
from service.classify.context import Context
from service.engine.crew import Crew
from service.engine.errors import EngineError
from service.engine.workers.pool import ModelSource, Workshop
from service.errors import ApiError
from service.repository.folder import ModelFolder
from service.repository.following import Following
from service.repository.models import Models, ModelState
from service.repository.opening import Opening
from service.repository.whole import Whole

_log = logging.getLogger(__name__)

# What keeps a model from being served, and nothing else.
_FAILURES = (ArtifactError, EngineError, SettingsError)
_LONGEST_REASON = 500  # in letters


class _NoRoomError(ArtifactError):
    """There is nothing wrong with a model but that others are served already."""


@dataclass
class Repository:
    """Loads and unloads, one change at a time.

    Attributes:
        folder: where the models are; None where only one is served, for good.
        models: that are served.
        opening: makes what a model is answered from.
        workshop: makes workers.
        crew: runs the models.
        most: versions served at a time.
        drain_s: longest time for a version that goes to finish what waits for it, in seconds.
        whole: the service, where this process is one of several that are it.
    """

    folder: ModelFolder | None
    models: Models
    opening: Opening
    workshop: Workshop | None
    crew: Crew
    most: int
    drain_s: float
    whole: Whole | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _following: Following | None = None
    _numbers: int = 0  # the first model has that
    _stale: bool = False  # whether workers may have models that are not served any more
    _failed: dict[tuple[str, str], int] = field(default_factory=dict)  # with the stamps that they had

    async def load(self, name: str, version: str | None = None) -> None:
        """Serve a version, or open it anew where it is served already.

        Args:
            name: of the model.
            version: None for the newest in the folder.

        Raises:
            ApiError: it cannot be; the message says why.
        """
        await (self.whole.change("load", name, version) if self.whole else self.load_here(name, version))

    async def load_here(self, name: str, version: str | None = None) -> None:
        """The same, in this process alone."""
        async with self._lock:
            there = await asyncio.to_thread(self._its_folder().versions)
            found = [each for each in there if each[0] == name and version in (None, each[1])]
            if not found:
                raise ApiError(404, "unknown_model", f"the repository has no such model: {name[:80]!r}")
            await self._load(found[-1:])
            told = self.models.states[found[-1]]
            if told.state == "failed":
                raise ApiError(422, "model_failed", f"{' '.join(found[-1])} cannot be served: {told.reason}")

    async def unload(self, name: str, version: str | None = None) -> None:
        """Serve a version no more, or all of them.

        Raises:
            ApiError: none is served, or no version of the default model would be left.
        """
        await (self.whole.change("unload", name, version) if self.whole else self.unload_here(name, version))

    async def unload_here(self, name: str, version: str | None = None) -> None:
        """The same, in this process alone."""
        async with self._lock:
            self._its_folder()
            of_name = [each for each in self.models if each.manifest.name == name]
            leaving = [each for each in of_name if version in (None, each.manifest.version)]
            if not leaving:
                self.models.find(name, version)
            if name == self.models.default_name and len(leaving) == len(of_name):
                raise ApiError(409, "model_in_use", f"{name} answers where requests name no model, and stays")
            for each in leaving:
                self.models.remove(each)
            await self._dismiss(leaving)

    async def load_all(self, only: Sequence[tuple[str, str]] | None = None) -> None:
        """Serve what is in the folder as it is there: load what is new or has changed, unload what is gone.

        Args:
            only: these versions; by default all.
        """
        async with self._lock:
            changed, there = await asyncio.to_thread(self._changes, self._its_folder())
            wanted = [each for each in changed if only is None or each in only]
            # First what makes room; of a model that changes, only when the other version is served.
            await self._unload_gone(there, staying={name for name, _ in wanted})
            await self._load(wanted)
            await self._unload_gone(there)
            served = {(each.manifest.name, each.manifest.version) for each in self.models}
            for model in self.models.states.keys() - there - served:  # what could not be loaded and is gone
                del self.models.states[model]

    async def _unload_gone(self, there: set[tuple[str, str]], staying: Collection[str] = ()) -> None:
        """Serve no version any more that is not in the folder, but the last one of the default model.

        Args:
            there: what is in the folder.
            staying: names of models that are left as they are.
        """
        gone = [each for each in self.models if (each.manifest.name, each.manifest.version) not in there]
        gone = self._without_last_of_default([each for each in gone if each.manifest.name not in staying])
        for each in gone:
            self.models.remove(each)
        await self._dismiss(gone)

    def _without_last_of_default(self, leaving: Sequence[Context]) -> list[Context]:
        """These, but the newest version of the default model where no other would be left."""
        of_default = [each for each in self.models if each.manifest.name == self.models.default_name]
        is_last = all(each in leaving for each in of_default)
        return [each for each in leaving if not (is_last and each is self.models.default)]

    async def withdraw_damaged(self) -> None:
        """Serve no version any more whose files are gone or have changed, but the last one of the default model.

        A worker that is started cannot open such a one, and would run no other model either.
        """
        async with self._lock:
            folder = self._its_folder()
            damaged = [each for each in self.models if not await asyncio.to_thread(folder.is_whole, each.manifest)]
            damaged = self._without_last_of_default(damaged)
            found = [(each.manifest.name, each.manifest.version) for each in damaged]
            stamps = await asyncio.to_thread(self._stamps, found)
            for each, model in zip(damaged, found, strict=True):
                self.models.remove(each)
                self._note_failure(*model, ArtifactError("its files are gone or have changed"), stamps)
            # Where no worker is left that could finish anything, to wait would keep the other models from being run.
            await self._dismiss(damaged, self.drain_s if any(each.alive for each in self.crew.workers) else 0.0)

    def begin(self, watched: bool) -> None:
        """Load what is in the folder, and go on with what changes there if it is watched."""
        if self.folder and self.workshop:
            self.crew.on_leave = self.workshop.give_up
            self._following = Following(self.folder.path, self.load_all, self.withdraw_damaged)
            self.crew.on_failed_start = self._following.note_failed_start
            self._following.begin(self.whole.models if self.whole else None, watched)

    async def end(self) -> None:
        """Follow the folder no more."""
        if self._following:
            await self._following.end()

    async def wait_until_begun(self) -> None:
        """Wait until what is in the folder at first is served, as far as it can be."""
        if self._following:
            await self._following.begun.wait()

    @property
    def problem(self) -> str | None:
        """Why no request should be sent here now; None where the service is ready."""
        return self.own_problem or (self.whole.problem if self.whole else None)

    @property
    def leaving(self) -> bool:
        """Whether the service ends here."""
        return self.crew.leaving or not self.crew.running

    @property
    def served(self) -> list[tuple[str, str]] | None:
        """Name and version of all that is served; None where that is one model, for good."""
        return [(each.manifest.name, each.manifest.version) for each in self.models] if self.folder else None

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics of the service."""
        return self.opening.metrics.registry

    @property
    def own_problem(self) -> str | None:
        """The same of this process alone."""
        if self._following is not None and not self._following.begun.is_set():
            return "loading models"
        return self.models.default.engine.problem

    def _its_folder(self) -> ModelFolder:
        if self.folder is None:
            raise ApiError(
                409, "no_repository", "the service has one model, and was started without --model-repository"
            )
        return self.folder

    def _changes(self, folder: ModelFolder) -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
        """The versions in the folder that are new or have changed, and all that are there; takes a while."""
        there = folder.versions()
        return [model for model in there if self._has_changed(folder, *model)], set(there)

    def _has_changed(self, folder: ModelFolder, name: str, version: str) -> bool:
        if (name, version) in self._failed:  # it is tried again when a file of it has changed
            return folder.stamp(name, version) != self._failed[name, version]
        served = self.models.served(name, version)
        try:
            return served is None or folder.read(name, version)[1] != served.manifest
        except ArtifactError:
            return True

    async def _load(self, versions: Sequence[tuple[str, str]]) -> None:
        """Serve these versions, as far as they can be; the states tell which could not."""
        contexts: list[Context] = []
        for model in versions:
            self.models.states[model] = ModelState("loading")
        stamps = await asyncio.to_thread(self._stamps, versions)  # before a file is read, which may change meanwhile
        for name, version in versions:
            try:
                contexts.append(await self._proven(name, version, len(contexts)))
            except Exception as error:  # of one model, which keeps no other from being served
                self._note_failure(name, version, error, stamps)
        if not contexts:
            return
        engines = [each.engine for each in contexts]
        models = [each.engine.model for each in (*self.models, *contexts)]
        try:
            await self.crew.replace(lambda: self._workshop.worker(models), engines)
        except BaseException as error:
            self._stale = True
            for each in contexts:  # which need not be to blame: they are tried again with the next change
                self._note_failure(each.manifest.name, each.manifest.version, error, {})
                await self.crew.dismiss(each.engine.model.number, 0)
            if not isinstance(error, Exception):
                raise
            return
        replaced = [before for each in contexts if (before := self._serve(each))]
        await self._dismiss(replaced)

    async def _proven(self, name: str, version: str, others: int) -> Context:
        """What requests for a version will be answered from, when it is known that it can be run.

        Args:
            name, version: of the model.
            others: that will be served from now on as well.
        """
        folder, manifest = await asyncio.to_thread(self._its_folder().read, name, version)
        if self.models.served(name, version) is None and sum(1 for _ in self.models) + others >= self.most:
            raise _NoRoomError(f"{self.most} models are served already, the most there may be; see --max-models")
        self._numbers += 1
        source = ModelSource(self._numbers, folder, manifest)
        return self.opening.context(await asyncio.to_thread(self._workshop.prove, source))

    @property
    def _workshop(self) -> Workshop:
        assert self.workshop is not None
        return self.workshop

    def _serve(self, context: Context) -> Context | None:
        context.metrics.show(context.counts)
        context.rechecks.begin()
        manifest, runtime = context.manifest, context.engine.model.runtime
        self._failed.pop((manifest.name, manifest.version), None)
        _log.info("%s %s is served, in %s in %s", manifest.name, manifest.version, runtime.name, runtime.precision)
        return self.models.serve(context)

    async def _dismiss(self, contexts: Sequence[Context], drain_s: float | None = None) -> None:
        """Finish what waits for models that no request reaches any more, and have workers without them."""
        if not contexts and not self._stale:
            return
        for each in contexts:
            each.rechecks.end()
            await self.crew.dismiss(each.engine.model.number, self.drain_s if drain_s is None else drain_s)
            each.metrics.hide(each.counts)
        serving = [each.engine.model for each in self.models]
        self._stale = True
        try:
            await self.crew.replace(lambda: self._workshop.worker(serving))
            self._stale = False
        except _FAILURES as error:  # they are replaced with the next change, or when one cannot be started again
            _log.warning("some workers still hold models that are not served any more: %s", error)

    def _stamps(self, versions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """By version, what changes with its files."""
        stamps = {}
        for model in versions:
            with suppress(OSError):
                stamps[model] = self._its_folder().stamp(*model)
        return stamps

    def _note_failure(
        self, name: str, version: str, error: BaseException, stamps: Mapping[tuple[str, str], int]
    ) -> None:
        """Note why a version cannot be served; one that was served before still is."""
        reason = " ".join(str(error).split()) or type(error).__name__
        _log.error("%s %s cannot be served: %s", name, version, reason, exc_info=not isinstance(error, _FAILURES))
        self.models.states[name, version] = ModelState("failed", reason[:_LONGEST_REASON])
        if (name, version) in stamps and not isinstance(error, _NoRoomError):
            self._failed[name, version] = stamps[name, version]


def repository(request: Request) -> Repository:
    """The models of the app a request came to."""
    found: Repository = request.app.state.repository
    return found
