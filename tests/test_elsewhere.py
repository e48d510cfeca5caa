"""Differences between machines, shells and editors: environment, memory, GPUs, forms of YAML, and rare errors."""

import argparse
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from calls import CONFIG, REPO, SIZES

from leapwarp import environment, files, machine, plan, provenance
from leapwarp.check import check, read_yaml
from leapwarp.data import prepare, prepare_imagenet, prepare_images
from leapwarp.experiments import command

# ---------------------------------------------------------------- the environment of a job


def test_a_job_takes_no_binding_of_threads_no_backend_and_no_startup_files():
    given = {
        "PATH": "/usr/bin",
        "HOME": str(Path.home()),
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": "cores",
        "GOMP_CPU_AFFINITY": "0",
        "KMP_AFFINITY": "compact",
        "OMP_NUM_THREADS": "64",
        "TORCH_LOGS": "everything",
        "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "BASH_ENV": "/etc/profile.d/modules.sh",
        "PYTHONOPTIMIZE": "2",
        "GIT_DIR": "/elsewhere/.git",
        "LANG": "de_DE.ISO-8859-1",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    found = environment.of_job(given)
    assert found == {
        "PATH": "/usr/bin",
        "HOME": str(Path.home()),
        "LANG": "de_DE.ISO-8859-1",
        "CUDA_VISIBLE_DEVICES": "1",  # the user's choice of GPUs is kept
        **environment.FIXED,
    }
    assert found["OMP_PROC_BIND"] == "false" and found["MPLBACKEND"] == "Agg" and found["PYTHONUTF8"] == "1"
    mine = dict(given)
    environment.settle(mine)
    assert mine == found


def test_a_home_that_cannot_be_written_has_its_fonts_elsewhere():
    assert "MPLCONFIGDIR" not in environment.of_job({"HOME": str(Path.home())})
    assert "leapwarp" in environment.of_job({"HOME": "/proc/nobody"})["MPLCONFIGDIR"]


@pytest.mark.slow
def test_programs_settle_their_environment_before_anything_is_imported():
    """If runs were bound to a core, two would share it. With a notebook's backend, matplotlib cannot be imported."""
    code = """
import os, sys
sys.argv = ["leapwarp.experiments", "nothing"]
from leapwarp import catalogue
catalogue.find("surfaces").module("report")  # imports matplotlib first
import leapwarp.experiments, torch
print(len(os.sched_getaffinity(0)), torch.zeros(4).sum().item())
"""
    bad = {"MPLBACKEND": "module://nowhere.at_all", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"}
    bad |= {"TORCH_LOGS": "everything", "OMP_NUM_THREADS": "abc", "TMPDIR": "/nowhere"}
    given = os.environ | bad | {"LC_ALL": "POSIX"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(os.sched_getaffinity(0))), "0.0"]


def test_what_a_run_is_does_not_depend_on_language_or_shell(monkeypatch):
    before = provenance.version(), provenance.code()
    for name, value in (("LC_ALL", "de_DE.ISO-8859-1"), ("LANGUAGE", "de"), ("GIT_DIR", "/nowhere"), ("CDPATH", "/")):
        monkeypatch.setenv(name, value)
    mask = os.umask(0o077)
    try:
        assert (provenance.version(), provenance.code()) == before
    finally:
        os.umask(mask)


def test_all_text_is_read_and_written_in_utf_8():
    """If no encoding is given, Python uses that of the caller's locale."""
    wrong = []
    for path in (REPO / "src").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            bare = ".read_text()" in line or ("text=True" in line and "subprocess" in line)
            if bare or (".write_text(" in line and line.rstrip().endswith(")") and "encoding" not in line):
                wrong.append(f"{path.name}:{number}")
    assert not wrong


# ---------------------------------------------------------------- memory and GPUs


def test_memory_is_that_of_the_machine_or_of_the_container(tmp_path):
    whole = machine.memory_mb(tmp_path)
    assert whole is not None and 500 < whole < 10**8
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/mine\n")
    for folder, limit in (("jobs/mine", "max"), ("jobs", str(300 << 20))):
        (tmp_path / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / folder / "memory.max").write_text(limit + "\n")
    assert machine.memory_mb(tmp_path) == 300
    (tmp_path / "proc/self/cgroup").write_text("5:cpu,memory:/docker\n")
    (tmp_path / "sys/fs/cgroup/memory/docker").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory/docker/memory.limit_in_bytes").write_text(str(200 << 20))
    assert machine.memory_mb(tmp_path) == 200


@pytest.mark.parametrize(
    ("visible", "n"),
    [(None, 2), ("", 0), ("-1", 0), ("0", 1), ("0,1", 2), ("0,1,2,3", 2), ("GPU-1a2b", 1), ("1,-1", 1)],
)
def test_gpus_are_those_that_jobs_see(tmp_path, visible, n):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "proc/driver/nvidia/gpus" / name).mkdir(parents=True)
    assert machine.gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == n
    assert machine.gpus({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path / "nothing") == 0


# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: 1\nseeds: 2\nmethods: 3\n", "the key 'methods' is there twice, in lines 1 and 3: keep one"),
        ("a: {b: 1, c: 2, b: 3}", "the key 'b' is there twice, in line 1"),
        (
            "a: 010",
            'line 1: YAML takes 010 for an octal number. Needed a number in usual digits, or text in quotes: "010"',
        ),
        ("x: 1\nsize: 12:30", "line 2: YAML takes 12:30 for a number to the base of 60"),
        ("size: 2026-11-27", "YAML takes 2026-11-27 for a date"),
        ("a: .nan", "not finite"),
        ("a: -.INF", "not finite"),
        ("no: 1", 'line 1: YAML does not take the key no for text: write "no"'),
        ("3: 1", 'write "3"'),
        ("a:\n\tb: 1", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
        ("a: !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_yaml_that_can_be_read_in_two_ways_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "it.yaml").write_text(text)
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        read_yaml(tmp_path / "it.yaml", "something")
    assert str(caught.value).startswith(str(tmp_path / "it.yaml")) and message in str(caught.value)


def test_yaml_is_read_as_it_looks(tmp_path):
    (tmp_path / "it.yaml").write_bytes(
        "\ufeffrate: 1e-3\r\nmany: 2E5\r\nflag: no\r\nname: '010'\r\nwhen: \"12:30\"\r\n"
        "one: &one {a: 1}\r\ntwo: {<<: *one, a: 2}\r\nname of ü: é\r\n".encode()
    )
    assert read_yaml(tmp_path / "it.yaml", "") == {
        "rate": 0.001, "many": 200000.0, "flag": False, "name": "010", "when": "12:30",
        "one": {"a": 1}, "two": {"a": 2}, "name of ü": "é",
    }  # fmt: skip


def test_files_of_the_repository_are_read_in_one_way():
    for path in [
        *SIZES.glob("*.yaml"),
        *(REPO / "src").rglob("*.yaml"),
        REPO / "config.yaml",
        REPO / "paper/claims.yaml",
    ]:
        read_yaml(path, "a file of ours")


@pytest.mark.parametrize(
    ("value", "more"), [(3.0, ""), (True, "YAML reads yes, no, on and off"), (None, "There is no value")]
)
def test_what_is_no_whole_number_is_refused(value, more):
    schema = {"type": "object", "properties": {"seeds": {"type": "integer", "description": "a whole number"}}}
    with pytest.raises(ValueError, match=f"'seeds' is {value}. Allowed: a whole number. ?{more}"):
        check({"seeds": value}, schema, "it")


# ---------------------------------------------------------------- config.yaml


def test_paths_are_taken_in_full_and_braces_are_braces(tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("data", "d {x}", "it's $5"):
        (tmp_path / name).mkdir()
    for written, meant in (
        ("${MINE}/data", "data"), ("$MINE/data", "data"), ("~/data", "data"),
        (str(tmp_path / "d {x}"), "d {x}"), (str(tmp_path / "it's $5"), "it's $5"),
    ):  # fmt: skip
        assert plan.settled(CONFIG | {"data": {"source": "auto", "dir": written}})["data"]["dir"] == str(
            tmp_path / meant
        )
    for written, message in (
        (
            "${NOWHERE_AT_ALL}/data",
            r"'data.dir' is '\${NOWHERE_AT_ALL}/data', and there is no variable \${NOWHERE_AT_ALL}",
        ),
        ("~/nothing", f"'data.dir' is '~/nothing', and there is no such folder .{tmp_path}/nothing"),
        ("{config}", "'data.dir' is '{config}', and there is no such folder. Needed one"),
    ):
        with pytest.raises(ValueError, match=message):
            plan.settled(CONFIG | {"data": {"source": "auto", "dir": written}})
    for written in ("auto", "textures", "~/data", str(tmp_path / "d {x}")):
        plan.settled(CONFIG | {"data": {"source": "auto", "dir": "", "mini_imagenet": written}})
    with pytest.raises(
        ValueError, match="'data.mini_imagenet' is '~/nothing', and there is no such folder. Needed auto"
    ):
        plan.settled(CONFIG | {"data": {"source": "auto", "dir": "", "mini_imagenet": "~/nothing"}})
    assert CONFIG["data"]["dir"] == ""


def test_what_the_command_line_gives_is_taken_as_meant():
    """`--config seeds={sine: 3}` gives text where config.yaml has numbers, and `--config state=` gives nothing."""
    given = CONFIG | {"seeds": {"sine": "3"}, "search": {"with_all": "true", "use": "auto"}, "state": None}
    found = plan.settled(given | {"own_experiments": None})
    assert (found["seeds"], found["state"], found["own_experiments"]) == ({"sine": 3}, "", "")
    assert found["search"] == {"with_all": True, "use": "auto"}
    plan.read_config(found, SIZES)
    for seeds in ("0x3", 3.0, True, 10**20, {"sine": "three"}):
        with pytest.raises(ValueError, match="'seeds' is .* Allowed: a mapping"):
            plan.read_config(plan.settled(CONFIG | {"seeds": seeds}), SIZES)


@pytest.mark.parametrize("name", ["my size", "{size}", "a*", "-x", "data", "logs", "quick'"])
def test_a_size_has_a_name_that_folders_and_commands_can_have(tmp_path, name):
    path = tmp_path / f"{name}.yaml"
    path.write_text((SIZES / "smoke.yaml").read_text())
    with pytest.raises(ValueError, match="Give it another name"):
        plan.read_config(CONFIG | {"size": str(path)}, SIZES)
    path.rename(tmp_path / "größe-2.v1.yaml")
    assert plan.read_config(CONFIG | {"size": str(tmp_path / "größe-2.v1.yaml")}, SIZES).stem == "größe-2.v1"


def test_a_size_of_ones_own_does_not_take_the_results_of_another(tmp_path, monkeypatch):
    """In another folder there are no others."""
    monkeypatch.chdir(REPO)
    path = shutil.copy(SIZES / "quick.yaml", tmp_path)
    with pytest.raises(ValueError, match="quick.yaml, whose results would be in the folder of those of .*quick.yaml"):
        plan.read_config(CONFIG | {"size": str(path)}, SIZES)
    assert plan.read_config(CONFIG | {"size": str(SIZES / "quick.yaml")}, SIZES).stem == "quick"
    monkeypatch.chdir(tmp_path)
    assert plan.read_config(CONFIG | {"size": "quick.yaml"}, SIZES) == Path("quick.yaml")


def test_an_experiment_without_a_folder_of_ones_own_is_named(tmp_path):
    with pytest.raises(
        ValueError, match="mine.yaml: 'experiments' has 'hills', which is not of the package, and 'own_"
    ):
        plan.chosen(CONFIG | {"own_experiments": ""}, ["hills"], tmp_path / "mine.yaml")


def test_code_of_ones_own_experiments_counts(tmp_path):
    """The code of an experiment, a module beside it, one that it imports later, and one that it finds elsewhere: a run
    is not resumed after a change, and no settings are reused."""
    shutil.copytree(REPO / "tests/own/hills", tmp_path / "hills")
    run, beside, later = (tmp_path / name for name in ("hills/run.py", "beside.py", "hills/later.py"))
    elsewhere = tmp_path / "other" / "elsewhere.py"
    elsewhere.parent.mkdir()
    run.write_text(run.read_text() + "\nimport elsewhere\nfrom leapwarp.experiments import beside  # noqa\n")
    for path in (beside, later, elsewhere):
        path.write_text("NUMBER = 1\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(elsewhere.parent), os.environ.get("PYTHONPATH", "")])
    }
    code = f"from leapwarp import catalogue, provenance; catalogue.find({str(tmp_path / 'hills')!r}).module('run')"

    def found():
        line = [sys.executable, "-c", f"{code}; print(provenance.code())"]
        path = plan.departures_file(SIZES / "smoke.yaml", [f"{tmp_path}/hills"], tmp_path)
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout, path

    first = found()
    assert found() == first
    for path in (run, beside, later, elsewhere):
        path.write_text(path.read_text() + "# a change\n")
        second = found()
        assert second[0] != first[0] and (second[1] != first[1] or path == elsewhere)
        first = second


def test_copies_and_what_editors_leave_are_no_sizes(tmp_path):
    for name in ("quick", "mine.v2", "quick (1)", ".quick", "~quick", "-quick"):
        (tmp_path / f"{name}.yaml").write_text("")
    assert [path.stem for path in plan.size_files(tmp_path)] == ["mine.v2", "quick"]


def test_folders_of_editors_are_no_experiments(tmp_path):
    for name in ("mine", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.yaml").write_text("title: x\n")
    config = CONFIG | {"own_experiments": str(tmp_path), "experiments": ["mine"]}
    assert plan.chosen(config, [], tmp_path) == [f"{tmp_path}/mine"]
    with pytest.raises(ValueError, match=r"'experiments' has '.ipynb_checkpoints', which is none of "):
        plan.chosen(config | {"experiments": [".ipynb_checkpoints"]}, [], tmp_path)


@pytest.mark.parametrize("link", ["profiles", "workflow/profiles"])
def test_default_options_that_are_not_there_are_an_error(tmp_path, link):
    """If links are turned off, git writes a text file in their place, and Snakemake would run without its options."""
    default = tmp_path / "workflow/profiles/default"
    default.mkdir(parents=True)
    (default / "config.yaml").write_text("cores: all\n")
    (tmp_path / "profiles").symlink_to("workflow/profiles")
    plan.check_profile(tmp_path, ["snakemake"])
    if link == "profiles":
        (tmp_path / link).unlink()
    else:
        (tmp_path / link).rename(tmp_path / "real")
    (tmp_path / link).write_text("workflow/profiles")
    with pytest.raises(ValueError, match="is no folder: links are not made here, so that Snakemake would run without"):
        plan.check_profile(tmp_path, ["snakemake"])
    plan.check_profile(tmp_path, ["snakemake", "--workflow-profile", "workflow/profiles/default"])
    assert isinstance(read_yaml(REPO / "profiles/default/config.yaml", ""), dict)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of"),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_out_of_memory_says_which_setting_to_lower_and_that_the_checkpoint_is_kept(error, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught, command.job("leap, 1 tasks", tmp_path / "state"):
        raise error
    message = str(caught.value.code)
    assert message.startswith("error: leap, 1 tasks: out of memory (") and "\n" not in message
    assert "Lower seeds_per_job" in message and "tasks_at_a_time" in message and "checkpoint is kept" in message
    assert "Traceback" not in capsys.readouterr().err and not list(tmp_path.iterdir())  # no lock is left either


def test_a_job_that_was_killed_is_explained_in_one_line():
    """The job itself cannot print a message. Snakemake's log has the signal, or the exit code of a shell."""
    log = """
RuleException:
CalledProcessError in file "/x/train.smk", line 7:
Command 'set -euo pipefail;  exec python -m leapwarp' {}
[Fri Nov 27 15:12:37 2026]
Error in rule train:
    message: None
    jobid: 1
    output: a.txt
    log: results/a.log (check log file(s) for error details)
"""
    for end, why, lower in (
        ("died with <Signals.SIGKILL: 9>.", "was killed from outside, most likely by the system because memory", True),
        ("returned non-zero exit status 137.", "was killed from outside", True),
        ("died with <Signals.SIGABRT: 6>.", "was aborted by a library, most likely because memory ran out", True),
        ("returned non-zero exit status 135.", "was ended by the system, most likely because a disk or shared", False),
        ("SLURM status is: 'OUT_OF_MEMORY'. ", "took more memory than mem_mb of the profile", True),
    ):
        [said] = files.ended(log.format(end))
        assert (
            said.startswith("error: a job of rule train (log results/a.log) was") and why in said and "\n" not in said
        )
        assert ("Lower seeds_per_job" in said and "checkpoint is kept" in said) == lower
    assert len(files.ended(log.format("died with <Signals.SIGKILL: 9>.") * 2)) == 1
    for end in ("died with <Signals.SIGTERM: 15>.", "returned non-zero exit status 1.", "returned non-zero exit 75."):
        assert files.ended(log.format(end)) == []


@pytest.mark.parametrize("module", [prepare, prepare_imagenet, prepare_images])
def test_whatever_happens_to_data_is_one_line_too(module, monkeypatch, tmp_path, capsys):
    """If memory runs out here, the message does not advise to change settings of a run."""
    line = ["--out", str(tmp_path / "x"), *(["--set", "mini"] if module is prepare_imagenet else [])]
    for error, said in (
        (MemoryError("Unable to allocate 16.5 GiB"), "out of memory (Unable to allocate 16.5 GiB). Needed more memory"),
        (KeyError("x"), "unexpected KeyError in tests/test_elsewhere.py, line "),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a/b"), "a/b: Too many levels of symbolic links."),
    ):

        def broken(*_, error=error):
            raise error

        monkeypatch.setattr(module, "prepare", broken)
        with pytest.raises(SystemExit) as caught:
            module.main(line)
        last = capsys.readouterr().err.splitlines()[-1]
        assert caught.value.code == 1 and f"error: {said}" in last and "seeds_per_job" not in last


def test_an_error_that_comes_from_too_little_memory_is_one():
    error = KeyError("x")
    error.__cause__ = MemoryError()
    assert files.is_out_of_memory(error)
    assert not files.is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x.csv"), "x.csv: Permission denied. Needed the right to"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            "x: No space left on device. Make room and start again",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files. Raise the number"),
    ],
)
def test_errors_of_the_system_say_what_to_do(error, text, tmp_path):
    with pytest.raises(SystemExit) as caught, command.job("it", tmp_path / "state"):
        raise error
    assert str(caught.value.code).startswith(f"error: it: {text}")


@pytest.mark.parametrize(
    "error", [KeyError("accuracy"), RuntimeError("odd\nlines"), ZeroDivisionError(), AssertionError()]
)
def test_what_nobody_expected_is_one_line_with_its_traceback_in_the_log(error, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught, command.job("it", tmp_path / "state"):
        raise error
    message = str(caught.value.code)
    assert message.startswith(f"error: it: unexpected {type(error).__name__} in tests/test_elsewhere.py, line ")
    assert "\n" not in message and "The traceback is in the log" in message
    log = capsys.readouterr().err
    assert log.startswith("Traceback") and type(error).__name__ in log
    with pytest.raises(SystemExit) as caught, files.one_line(argparse.ArgumentParser()):
        raise error
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: unexpected {type(error).__name__}")


def test_a_seed_of_twenty_digits_is_refused(capsys):
    line = ["surfaces", "--method", "warpgrad", "--seeds", "1" * 20, "--out", "x.safetensors", "--history", "x.csv"]
    with pytest.raises(SystemExit) as caught:
        command.train(line)
    assert caught.value.code == 2
    assert "argument --seeds: needed a whole number from 0 to 999999999999999999" in capsys.readouterr().err
