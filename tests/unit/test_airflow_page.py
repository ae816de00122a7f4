"""The DAGs of docs/airflow.md as they stand there, against stand-ins for Airflow that know what its operators take.

`tests/airflow_check.py` runs them in a real Airflow, by hand.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from mig_spark import cli
from mig_spark.config.load import check_overrides, load_config
from mig_spark.pipeline import STAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "airflow.md").read_text(encoding="utf-8")
BUNDLE = ROOT / "deploy" / "databricks"
EMR = ROOT / "deploy" / "emr"

#: Parameters of the operators' own, as `inspect.signature` shows them (`tests/airflow_check.py`).
TAKES = {
    # apache-airflow-providers-databricks 7.23.0
    "DatabricksRunNowOperator": {
        "job_id",
        "job_name",
        "job_parameters",
        "json",
        "dbt_commands",
        "notebook_params",
        "python_params",
        "jar_params",
        "spark_submit_params",
        "python_named_params",
        "idempotency_token",
        "performance_target",
        "databricks_conn_id",
        "polling_period_seconds",
        "databricks_retry_limit",
        "databricks_retry_delay",
        "databricks_retry_args",
        "do_xcom_push",
        "wait_for_termination",
        "deferrable",
        "openlineage_inject_parent_job_info",
        "repair_run",
        "databricks_repair_reason_new_settings",
        "cancel_previous_runs",
        "forward_dag_params",
        "durable",
    },
    # apache-airflow-providers-amazon 9.39.0
    "EmrServerlessStartJobOperator": {
        "application_id",
        "execution_role_arn",
        "job_driver",
        "configuration_overrides",
        "client_request_token",
        "config",
        "wait_for_completion",
        "name",
        "waiter_max_attempts",
        "waiter_delay",
        "deferrable",
        "enable_application_ui_links",
        "cancel_on_kill",
        "openlineage_inject_parent_job_info",
        "openlineage_inject_transport_info",
    },
    # apache-airflow-task-sdk 1.3.2
    "DAG": {"schedule", "start_date", "catchup", "max_active_runs", "default_args", "tags", "description"},
}
#: Parameters of every operator, and of every operator for AWS.
COMMON = {"task_id", "retries", "retry_delay", "execution_timeout", "aws_conn_id", "region_name"}


@pytest.fixture
def dags(tmp_path, monkeypatch):
    """File name -> (the DAG's own arguments, those of its one operator)."""
    made = []

    def stand_in(name, more):
        class Taken:
            def __init__(self, *args, **given):
                assert given.keys() <= TAKES[name] | more, f"{name} takes no {given.keys() - TAKES[name] - more}"
                self.args, self.given = args, given
                made.append((name, self))

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

        return Taken

    modules = {
        "airflow.sdk": {"DAG": stand_in("DAG", set())},
        "airflow.providers.databricks.operators.databricks": {
            "DatabricksRunNowOperator": stand_in("DatabricksRunNowOperator", COMMON)
        },
        "airflow.providers.amazon.aws.operators.emr": {
            "EmrServerlessStartJobOperator": stand_in("EmrServerlessStartJobOperator", COMMON)
        },
        "pendulum": {"datetime": lambda *date, tz: (*date, tz)},
    }
    for path, names in modules.items():
        parts = path.split(".")
        for k in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:k]), ModuleType(".".join(parts[:k])))
        vars(sys.modules[path]).update(names)
    shutil.copy(EMR / "serverless" / "job-run.json", tmp_path)
    found = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        file = tmp_path / Path(code.partition("\n")[0].removeprefix("# ")).name
        file.write_text(code, encoding="utf-8")
        made.clear()
        runpy.run_path(str(file))
        [(_, dag), (operator, task)] = made
        assert dag.args == (file.stem,)
        found[file.name] = (dag.given, operator, task.given)
    return found


def test_the_page_has_one_dag_for_each_platform(dags):
    assert {name: operator for name, (_, operator, _) in dags.items()} == {
        "mig_databricks.py": "DatabricksRunNowOperator",
        "mig_emr.py": "EmrServerlessStartJobOperator",
    }
    for dag, _, _ in dags.values():
        assert (dag["max_active_runs"], dag["catchup"]) == (1, False)


def test_the_databricks_job_takes_the_parameters_that_are_sent(dags):
    _, _, task = dags["mig_databricks.py"]
    job = yaml.safe_load((BUNDLE / "resources" / "curate.yml").read_text())["resources"]["jobs"]["curate"]
    assert task["job_name"] == job["name"]
    assert task["job_parameters"].keys() == {p["name"] for p in job["parameters"]}
    assert {type(value) for value in task["job_parameters"].values()} == {str}
    overrides = shlex.split(task["job_parameters"]["overrides"])
    targets = yaml.safe_load((BUNDLE / "databricks.yml").read_text())["targets"]
    check_overrides(overrides, targets["prod"]["variables"]["allow_overrides"].split(","))
    config = load_config(BUNDLE / "config.yaml", [*overrides, f"mode={task['job_parameters']['mode']}"])
    assert (config.select.budget, config.mode) == (50000, "incremental")
    # the command above it sets a variable that the bundle has
    [deploy] = re.findall(r"databricks bundle deploy (.*)", PAGE)
    variables = yaml.safe_load((BUNDLE / "databricks.yml").read_text())["variables"]
    assert set(re.findall(r"--var (\w+)=", deploy)) <= variables.keys()
    assert "pause_status=PAUSED" in deploy


def test_the_request_to_emr_is_one_and_starts_a_whole_run(dags, monkeypatch):
    _, _, task = dags["mig_emr.py"]
    # as EmrServerlessStartJobOperator.execute puts it together
    request = {
        "clientToken": "made by the operator", "applicationId": task["application_id"],
        "executionRoleArn": task["execution_role_arn"], "jobDriver": task["job_driver"], "name": task["name"],
        **task["config"], "configurationOverrides": task["configuration_overrides"],
    }  # fmt: skip
    shape = (
        botocore.session.get_session().get_service_model("emr-serverless").operation_model("StartJobRun").input_shape
    )
    assert ParamValidator().validate(request, shape).generate_report() == ""
    # nothing of the file is lost on the way
    file = json.loads((EMR / "serverless" / "job-run.json").read_text())
    assert request.keys() == file.keys()
    # Airflow looks as long as the job may take
    assert task["waiter_delay"] * task["waiter_max_attempts"] == 60 * file["executionTimeoutMinutes"]

    submit = task["job_driver"]["sparkSubmit"]
    template = "{{ dag_run.run_after | ts_nodash }}"
    rendered = [arg.replace(template, "20260102T030000") for arg in submit["entryPointArguments"]]
    local = [re.sub(r"\S*config\.yaml", str(EMR / "config.yaml"), arg) for arg in rendered]
    runs = []
    monkeypatch.setattr(cli.flow, "run_stages", lambda config, stages, *, run_id, **_: runs.append((stages, run_id)))
    monkeypatch.setattr(sys, "argv", [submit["entryPoint"], *local])
    cli.job("run")
    assert [(tuple(stages), run_id) for stages, run_id in runs] == [(tuple(STAGES), "airflow-20260102T030000")]
