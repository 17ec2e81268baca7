"""What Kubernetes and KubeRay allow in the objects that cluster/kubernetes uses: the fields that we set, and no others.

Written from the API references of Kubernetes 1.30 and KubeRay 1.5. A field that is not here is refused, so a misspelt one
cannot hide; a new one is added here when a file begins to use it.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
QUANTITY: Schema = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(m|k|M|G|Ki|Mi|Gi|Ti)?$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


def only(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def several(item: Schema) -> Schema:
    """A list with something in it."""
    return {"type": "array", "items": item, "minItems": 1}


LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[\w.-]{0,63}$"}}
METADATA = only({"name": NAME}, namespace=NAME, labels=LABELS, annotations=TEXTS)
OBJECT_LABELS = only({}, labels=LABELS, annotations=TEXTS)
SECRET_KEY = only({"name": NAME, "key": TEXT})
VALUE_FROM = only({"secretKeyRef": SECRET_KEY})
ENV = only({"name": {"type": "string", "pattern": r"^\w+$"}}, value={"type": "string"}, valueFrom=VALUE_FROM)
AMOUNTS: Schema = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = only({"requests": AMOUNTS, "limits": AMOUNTS})
PROBE = only(
    {"exec": only({"command": several(TEXT)})},
    initialDelaySeconds=COUNT,
    periodSeconds=COUNT,
    timeoutSeconds=COUNT,
    failureThreshold=COUNT,
    successThreshold=COUNT,
)
SECCOMP = only({"type": {"enum": ["RuntimeDefault"]}})
POD_SECURITY = only(
    {"runAsNonRoot": FLAG, "runAsUser": COUNT, "runAsGroup": COUNT, "fsGroup": COUNT}, seccompProfile=SECCOMP
)
CONTAINER_SECURITY = only(
    {"allowPrivilegeEscalation": {"const": False}, "capabilities": only({"drop": {"const": ["ALL"]}})},
    readOnlyRootFilesystem=FLAG,
)
CONTAINER = only(
    {"name": NAME, "image": TEXT, "resources": RESOURCES, "securityContext": CONTAINER_SECURITY},
    command=several(TEXT),
    args=several(TEXT),
    env=several(ENV),
    ports=several(only({"name": {"type": "string", "maxLength": 15}, "containerPort": PORT})),
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    volumeMounts=several(only({"name": NAME, "mountPath": TEXT}, readOnly=FLAG, subPath=TEXT)),
)
VOLUME: Schema = {
    "oneOf": [
        only({"name": NAME, "secret": only({"secretName": NAME}, defaultMode=COUNT)}),
        only({"name": NAME, "emptyDir": only({}, medium={"const": "Memory"}, sizeLimit=QUANTITY)}),
        only({"name": NAME, "persistentVolumeClaim": only({"claimName": NAME}, readOnly=FLAG)}),
    ]
}
TOLERATION = only({"key": TEXT, "operator": {"enum": ["Exists", "Equal"]}}, effect={"enum": ["NoSchedule"]}, value=TEXT)
POD = only(
    {"containers": several(CONTAINER), "securityContext": POD_SECURITY},
    volumes=several(VOLUME),
    nodeSelector=TEXTS,
    tolerations=several(TOLERATION),
    terminationGracePeriodSeconds=COUNT,
    automountServiceAccountToken=FLAG,
    restartPolicy={"enum": ["Never", "OnFailure", "Always"]},
)
TEMPLATE = only({"spec": POD}, metadata=OBJECT_LABELS)

RAY_START: Schema = {
    "type": "object",
    # As `ray start` spells its options; every value is text.
    "propertyNames": {"enum": ["num-cpus", "num-gpus", "resources", "dashboard-host", "metrics-export-port"]},
    "additionalProperties": {"type": "string"},
}
WORKERS = only(
    {
        "groupName": NAME,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": RAY_START,
        "template": TEMPLATE,
    },
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
)
RAY_CLUSTER = only(
    {
        "rayVersion": TEXT,
        "headGroupSpec": only({"rayStartParams": RAY_START, "template": TEMPLATE}),
        "workerGroupSpecs": several(WORKERS),
    },
    authOptions=only({"mode": {"enum": ["token", "disabled"]}}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=only(
        {"version": {"enum": ["v1", "v2"]}, "resources": RESOURCES},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=COUNT,
    ),
    gcsFaultToleranceOptions=only(
        {"redisAddress": TEXT}, redisPassword=only({"valueFrom": VALUE_FROM}), externalStorageNamespace=TEXT
    ),
)
RAY_SERVICE = only(
    {"serveConfigV2": TEXT, "rayClusterConfig": RAY_CLUSTER},
    upgradeStrategy=only({"type": {"enum": ["NewCluster", "None"]}}),
    rayClusterDeletionDelaySeconds=COUNT,
    excludeHeadPodFromServeSvc=FLAG,
)
RAY_JOB = only(
    {"entrypoint": TEXT, "rayClusterSpec": RAY_CLUSTER},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode"]},
    entrypointNumCpus={"type": "number"},
    entrypointResources=TEXT,
    submitterPodTemplate=TEMPLATE,
)

SELECTOR = only(
    {},
    matchLabels=LABELS,
    matchExpressions=several(
        only({"key": TEXT, "operator": {"enum": ["In", "NotIn", "Exists"]}}, values=several(TEXT))
    ),
)
PEER = only({}, podSelector=SELECTOR, namespaceSelector=SELECTOR)
POLICY_PORTS = several(only({"protocol": {"enum": ["TCP", "UDP"]}, "port": PORT}))
CLAIM = only({"accessModes": several(TEXT), "resources": only({"requests": AMOUNTS})}, storageClassName=NAME)

SPECS: dict[tuple[str, str], Schema] = {
    ("ray.io/v1", "RayService"): RAY_SERVICE,
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("v1", "Service"): only(
        {
            "selector": LABELS,
            "ports": several(only({"name": NAME, "port": PORT}, targetPort=TEXT, appProtocol=TEXT)),
        },
        clusterIP={"enum": ["None"]},
    ),
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("apps/v1", "StatefulSet"): only(
        {"serviceName": NAME, "replicas": COUNT, "selector": SELECTOR, "template": TEMPLATE},
        volumeClaimTemplates=several(only({"metadata": METADATA, "spec": CLAIM})),
    ),
    ("policy/v1", "PodDisruptionBudget"): only({"minAvailable": COUNT, "selector": SELECTOR}),
    ("networking.k8s.io/v1", "NetworkPolicy"): only(
        {"podSelector": SELECTOR, "policyTypes": several({"enum": ["Ingress", "Egress"]})},
        ingress=several(only({}, **{"from": several(PEER)}, ports=POLICY_PORTS)),
        egress=several(only({}, to=several(PEER), ports=POLICY_PORTS)),
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): only(
        {
            "selector": SELECTOR,
            "podMetricsEndpoints": several(
                only({"port": TEXT}, interval=TEXT, metricRelabelings=several({"type": "object"}))
            ),
        }
    ),
}
BODIES: dict[tuple[str, str], Schema] = {
    ("v1", "Namespace"): only({}),
    ("v1", "Secret"): only({"type": TEXT, "stringData": TEXTS}),
}


def schema_of(api_version: str, kind: str) -> Schema:
    """Of a whole object.

    Raises:
        KeyError: nothing is known of such objects.
    """
    head = {"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": METADATA}
    if (api_version, kind) in BODIES:
        body = BODIES[api_version, kind]
        return {**body, "properties": head | body["properties"], "required": [*head, *body["required"]]}
    return only(head | {"spec": SPECS[api_version, kind]})
