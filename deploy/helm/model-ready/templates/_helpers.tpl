{{- define "model-ready.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "model-ready.labels" -}}
app.kubernetes.io/name: {{ include "model-ready.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "model-ready.selector" -}}
app.kubernetes.io/name: {{ include "model-ready.name" . }}
{{- end }}

{{- define "model-ready.api-token" -}}
{{- if .Values.secret.apiTokenKey }}
- name: SIDECAR_API_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .Values.secret.name }}, key: {{ .Values.secret.apiTokenKey }}}
{{- end }}
{{- end }}

{{/* The sidecar's container, for spec.initContainers. */}}
{{- define "model-ready.sidecar" -}}
name: sidecar
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always # this makes it a sidecar: it starts before the registry and stops after it
env:
  - {name: REDIS_HOST, value: {{ required "redis.host is required: the primary endpoint of Redis" .Values.redis.host | quote }}}
  - {name: REDIS_PORT, value: {{ .Values.redis.port | quote }}}
  {{- with .Values.redis.username }}
  - {name: REDIS_USERNAME, value: {{ . | quote }}}
  {{- end }}
  {{- with .Values.secret.redisTokenKey }}
  - name: REDIS_AUTH_TOKEN
    valueFrom:
      secretKeyRef: {name: {{ $.Values.secret.name }}, key: {{ . }}}
  {{- end }}
  {{- include "model-ready.api-token" . | trim | nindent 2 }}
  - {name: SIDECAR_LISTEN, value: "127.0.0.1:50051"}
  - {name: SIDECAR_HTTP_LISTEN, value: {{ ternary "[::]:9464" "0.0.0.0:9464" .Values.ipv6 | quote }}}
  - {name: SIDECAR_SOURCE, value: {{ .Values.sidecar.source | quote }}}
  - {name: SIDECAR_SHUTDOWN_SECONDS, value: {{ .Values.sidecar.shutdownSeconds | quote }}}
  - {name: SPOOL_DIR, value: /var/lib/modelready-sidecar/spool}
  - {name: SPOOL_MAX_BYTES, value: {{ .Values.spool.maxBytes | int64 | quote }}}
  {{- range $name, $value := .Values.sidecar.env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
{{- with .Values.sidecar.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: metrics, containerPort: 9464}
startupProbe: # the registry starts when this one has succeeded
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 1
  failureThreshold: 30
livenessProbe: # the process lives, also while Redis is away: a restart would not help
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe: # not /readyz: an outage of Redis would take all registries out of their Service, though events are spooled
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 3
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: spool, mountPath: /var/lib/modelready-sidecar}
{{- end }}
