"""Lints a Helm chart, and prints what Helm makes of it: `chart.py CHART`"""
import sys

import helm_python

CHART = sys.argv[1]
VALUES = [
    {},
    {"replicas": 3, "config": 'admin_token = "a\\"b"\n', "podMonitor": {"enabled": True}, "imagePullSecrets": [{"name": "pull"}]},
    {"image": {"repository": "registry.example/tollgate", "tag": "1", "pullPolicy": "Always"}, "persistence": {"storageClassName": "fast"},
     "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}], "networkPolicy": {"enabled": False},
     "podDisruptionBudget": {"enabled": False}, "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a", "operator": "Exists"}]},
]
WRONG = [{"replicas": "three"}, {"replica": 3}, {"config": 1}, {"service": {"port": "http"}}]

found = helm_python.lint(CHART)
# A picture for catalogues of charts is all that it may miss.
findings = [each["error"] for each in found["messages"] if each["error"] != "icon is recommended"]
assert not findings and not found["errors"], found

with helm_python.Chart.load(CHART) as chart:
    for number, values in enumerate(VALUES):
        for name, manifest in chart.render(values, name=f"gate-{number}", namespace="prod").items():
            if manifest.strip():
                print(f"---\n# {name}\n{manifest}")
    for values in WRONG:
        try:
            chart.validate_schema(values)
        except helm_python.HelmError:
            continue
        raise AssertionError(f"{values} is taken")
