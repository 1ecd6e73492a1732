"""What streaming explanations to Parquet costs beside the bare forward passes, and whether it stays right.

Usage: python benchmarks/pipeline.py [--images 100000] [--files 2000] [--kills 10] [--rounds 3]

CAM at its small preset on images of 64 pixels, trained for a moment; one thread a process. Rows:

1. pre-drawn bytes in memory: images a second of a plain loop of forward passes over the same batches, and of
   `ek.explain_dataset`, Parquet included, in turns; their ratio by the clock and in processor time;
2. the same from JPEG files, decoded in the same process;
3. memory after a tenth of the images, at the end, and the largest growth between;
4. two processes by `shard` beside one;
5. kills at random moments, and whether rows and files are bit for bit those that nobody killed.

Exit status 1 where a file of 5 differs.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from PIL import Image

import explainkit as ek
from explainkit.data.types import ArraySplit

SIZE, BATCH_SIZE = 64, 64
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def drawn(count: int) -> ArraySplit:
    """`count` images of noise and their labels, the same every time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return ArraySplit(images=images, labels=torch.arange(count) % 20)


def resident_megabytes() -> float:
    """Of this process, now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES / 1e6


def plain_loop(model: ek.Explainer, images: torch.Tensor) -> None:
    """Forward passes over the same batches."""
    with torch.no_grad():
        for batch in images.split(BATCH_SIZE):
            model.network(batch.float() / 255)


def plain_files(model: ek.Explainer, files: list[Path]) -> None:
    """The same over files, which are read and decoded one after the other."""
    from explainkit.data.reading import read_images

    with torch.no_grad():
        for start in range(0, len(files), BATCH_SIZE):
            model.network(read_images(files[start : start + BATCH_SIZE], (SIZE, SIZE)))


def timed(call, *arguments) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Seconds by the clock, and of this process's processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    call(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(name: str, count: int, rounds: int, plain, streamed) -> None:  # type: ignore[no-untyped-def]
    """Both in turns, and the medians of their ratios."""
    walls, cpus, rates = [], [], []
    for index in range(rounds):
        order = (plain, streamed) if index % 2 else (streamed, plain)
        seconds = {call: timed(call) for call in order}
        walls.append(seconds[plain][0] / seconds[streamed][0])
        cpus.append(seconds[plain][1] / seconds[streamed][1])
        rates.append((count / seconds[plain][0], count / seconds[streamed][0]))
    bare, ours = (statistics.median(column) for column in zip(*rates, strict=True))
    print(
        f"{name}, {count:,} images, {rounds} rounds: forward {bare:.0f} images/s, explain_dataset "
        f"{ours:.0f}; ratio {statistics.median(walls):.3f} by the clock "
        f"({min(walls):.3f} … {max(walls):.3f}), "
        f"{statistics.median(cpus):.3f} in processor time",
        flush=True,
    )


def measure_rates(model: ek.Explainer, options: argparse.Namespace, root: Path) -> None:
    """Rows 1 and 2."""
    split, out = drawn(options.images), root / "rate"

    def streamed() -> None:
        shutil.rmtree(out, ignore_errors=True)
        ek.explain_dataset(model, split, out, batch_size=BATCH_SIZE, progress=False)

    warm = ArraySplit(images=split.images[:BATCH_SIZE], labels=split.labels[:BATCH_SIZE])
    plain_loop(model, warm.images)
    ek.explain_dataset(model, warm, root / "warm", progress=False)
    compare("bytes", options.images, options.rounds, lambda: plain_loop(model, split.images), streamed)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"  {size / options.images:.0f} bytes an image on disk", flush=True)

    folder = root / "files"
    folder.mkdir()
    for index in range(options.files):
        picture = Image.fromarray(split.images[index % len(split)].permute(1, 2, 0).numpy())
        picture.resize((256, 256)).save(folder / f"{index:07d}.jpg")
    files = sorted(folder.iterdir())

    def from_files() -> None:
        shutil.rmtree(out, ignore_errors=True)
        ek.explain_dataset(model, folder, out, batch_size=BATCH_SIZE, progress=False)

    compare(
        "JPEG of 256 pixels", options.files, options.rounds, lambda: plain_files(model, files), from_files
    )


class Watched:
    """A split of a thousand images again and again, which takes down the memory of the process."""

    def __init__(self, count: int) -> None:
        self.split, self.labels = drawn(1_000), torch.arange(count) % 20
        self.sizes: list[float] = []

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, ids: torch.Tensor) -> ek.Batch:
        """The images of `ids`, and one measurement."""
        self.sizes.append(resident_megabytes())
        return ek.Batch(images=self.split.batch(ids % 1_000).images, labels=self.labels[ids], ids=ids)


def measure_memory(options: argparse.Namespace, root: Path) -> None:
    """Row 3, in a process that has done nothing else."""
    command = [sys.executable, __file__, "--watch", str(root / "model"), "--out", str(root / "memory")]
    subprocess.run([*command, "--images", str(options.images)], check=True)


def watch(model: Path, options: argparse.Namespace) -> None:
    """What `measure_memory` runs."""
    source = Watched(options.images)
    ek.explain_dataset(ek.load(model), source, options.out, batch_size=BATCH_SIZE, progress=False)
    tenth = source.sizes[len(source.sizes) // 10 :]
    print(
        f"memory: {tenth[0]:.0f} MB after {options.images // 10:,} images, {tenth[-1]:.0f} MB after "
        f"{options.images:,}: {100 * (tenth[-1] / tenth[0] - 1):+.1f} %; at most "
        f"{100 * (max(tenth) / tenth[0] - 1):+.1f} %",
        flush=True,
    )


def child(model: Path, count: int, out: Path, shard: tuple[int, int], beat: Path | None) -> None:
    """One process of a run; it says when it begins to explain."""
    torch.set_num_threads(1)
    split, explainer = drawn(count), ek.load(model)
    plain_loop(explainer, split.images[:BATCH_SIZE])
    if beat is not None:
        beat.touch()
        while not (beat.parent / "go").exists():
            time.sleep(0.001)
    ek.explain_dataset(explainer, split, out, batch_size=BATCH_SIZE, shard=shard, progress=False)


def start(
    model: Path, count: int, out: Path, shard: str = "0/1", beat: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process that runs `child`."""
    command = [sys.executable, __file__, "--child", str(model), "--images", str(count), "--out", str(out)]
    command += ["--shard", shard] + ([] if beat is None else ["--beat", str(beat)])
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def measure_shards(model: Path, options: argparse.Namespace, root: Path) -> None:
    """Row 4: from the moment on when all processes are ready."""
    seconds = {}
    for shards in (1, 2):
        beats = root / f"beats-{shards}"
        beats.mkdir()
        processes = [
            start(model, options.images, root / f"shards-{shards}", f"{index}/{shards}", beats / str(index))
            for index in range(shards)
        ]
        while len(list(beats.iterdir())) < shards:
            time.sleep(0.01)
        begun = time.perf_counter()
        (beats / "go").touch()
        for process in processes:
            _, errors = process.communicate()
            if process.returncode:
                raise RuntimeError(errors.decode())
        seconds[shards] = time.perf_counter() - begun
    print(
        f"shards: one process {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f} x "
        f"({os.cpu_count()} processors, load {os.getloadavg()[0]:.1f})",
        flush=True,
    )


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def measure_kills(model: Path, options: argparse.Namespace, root: Path) -> bool:
    """Row 5."""
    begun = time.perf_counter()
    whole = start(model, options.kill_images, root / "whole")
    _, errors = whole.communicate()
    if whole.returncode:
        raise RuntimeError(errors.decode())
    length = time.perf_counter() - begun
    expected = content_of(root / "whole")
    rows = ek.ExplanationDataset(root / "whole").to_arrow()
    chance, equal, killed = random.Random(options.seed), 0, 0
    for index in range(options.kills):
        out = root / f"killed-{index}"
        process = start(model, options.kill_images, out)
        try:
            process.communicate(timeout=chance.uniform(0.3, 1.0) * length)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
        left = len(content_of(out))
        again = start(model, options.kill_images, out)
        _, errors = again.communicate()
        if again.returncode:
            raise RuntimeError(errors.decode())
        is_equal = content_of(out) == expected and ek.ExplanationDataset(out).to_arrow().equals(rows)
        equal += is_equal
        verdict = "equal" if is_equal else "DIFFERENT"
        print(f"  kill {index + 1}: {left} of {len(expected)} files were there; end {verdict}", flush=True)
        shutil.rmtree(out)
    print(f"kills: {killed} runs killed, {equal} of {options.kills} ends equal, bit for bit", flush=True)
    return equal == options.kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kill-images", type=int, default=8_192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=["rates", "memory", "shards", "kills"])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard", default="0/1", help=argparse.SUPPRESS)
    parser.add_argument("--beat", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        index, count = map(int, options.shard.split("/"))
        child(options.child, options.images, options.out, (index, count), options.beat)
        return 0
    torch.set_num_threads(1)
    if options.watch:
        watch(options.watch, options)
        return 0
    chosen = options.only or ["rates", "memory", "shards", "kills"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        dataset = ek.dataset("aviary", train=200, validation=20, test=20)
        model = ek.explainer("cam", epochs=1).fit(dataset, seed=0, progress=False)
        saved = ek.save(model, root / "model")
        model = ek.load(saved)
        print(f"CAM small, {SIZE} px, batches of {BATCH_SIZE}, 1 thread a process", flush=True)
        if "rates" in chosen:
            measure_rates(model, options, root)
        if "memory" in chosen:
            measure_memory(options, root)
        if "shards" in chosen:
            measure_shards(saved, options, root)
        return int("kills" in chosen and not measure_kills(saved, options, root))


if __name__ == "__main__":
    sys.exit(main())
