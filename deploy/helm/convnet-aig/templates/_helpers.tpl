{{- define "aig.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "aig.fullname" -}}
{{- $name := include "aig.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $both .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "aig.selector" -}}
app.kubernetes.io/name: {{ include "aig.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aig.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "aig.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "aig.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (ternary "gpu" "cpu" (gt (int .Values.gpu.count) 0)) $image.tag }}
{{- end -}}
{{- end -}}

{{/* A value as the service reads it. Helm has whole numbers as floats, and YAML takes `on` for true. */}}
{{- define "aig.text" -}}
{{- if kindIs "bool" . -}}{{ ternary "on" "off" . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}

{{/* Where models lie in the container: those of a volume, those that were fetched, or those of the image. */}}
{{- define "aig.models" -}}
{{- $model := .Values.model -}}
{{- clean (printf "%s/%s" (ternary "/models" "/app/model_repository" (or (not (empty $model.volume)) (ne $model.fetch.url ""))) $model.path) -}}
{{- end -}}

{{- define "aig.brings-models" -}}
{{- if or .Values.model.volume .Values.model.fetch.url -}}yes{{- end -}}
{{- end -}}

{{/* The environment that follows from the values, as a mapping in YAML. */}}
{{- define "aig.environment" -}}
{{- $values := .Values -}}
{{- range $name, $value := $values.settings }}
AIG_{{ upper $name }}: {{ include "aig.text" $value | quote }}
{{- end }}
AIG_HOST: {{ $values.host | quote }}
AIG_PORT: "8000"
AIG_METRICS_HOST: {{ ternary "::" "0.0.0.0" (contains ":" $values.host) | quote }}
AIG_METRICS_PORT: {{ int $values.metrics.port | quote }}
AIG_CACHE: /var/cache/convnet-aig
AIG_WORKERS: {{ int $values.workers | quote }}
{{- if $values.model.repository }}
AIG_MODEL_REPOSITORY: {{ include "aig.models" . | quote }}
{{- else if or $values.model.path (include "aig.brings-models" .) }}
AIG_MODEL: {{ include "aig.models" . | quote }}
{{- end }}
{{- with $values.model.default }}
AIG_DEFAULT_MODEL: {{ . | quote }}
{{- end }}
{{- $gpus := int $values.gpu.count }}
AIG_DEVICE: {{ if gt $gpus 1 }}cuda:{{ until $gpus | join "," }}{{ else if $gpus }}cuda{{ else }}cpu{{ end }}
{{- if $values.grpc.port }}
AIG_GRPC_PORT: {{ int $values.grpc.port | quote }}
{{- end }}
{{- if $values.apiKeys.secret }}
AIG_API_KEYS: /etc/convnet-aig/{{ $values.apiKeys.key }}
{{- end }}
{{- if and $values.ingress.enabled (not (hasKey $values.settings "max_connections_per_address")) }}
# All connections come from the ingress controller.
AIG_MAX_CONNECTIONS_PER_ADDRESS: {{ include "aig.text" (default 2048 $values.settings.max_connections) | quote }}
{{- end }}
{{- if $values.tracing.endpoint }}
AIG_TRACING: otlp
OTEL_EXPORTER_OTLP_ENDPOINT: {{ $values.tracing.endpoint | quote }}
OTEL_SERVICE_NAME: {{ include "aig.fullname" . }}
{{- end }}
{{- end -}}

{{/* After preStop, the service may take drain_seconds for HTTP and then as long for gRPC; a minute is for its end. */}}
{{- define "aig.grace" -}}
{{- $drain := ceil (default 30 .Values.settings.drain_seconds) | int -}}
{{- add (int .Values.preStopSeconds) (mul $drain (ternary 2 1 (gt (int .Values.grpc.port) 0))) 60 -}}
{{- end -}}

{{- define "aig.resources" -}}
{{- if .Values.resources -}}
{{ toYaml .Values.resources }}
{{- else -}}
{{- $memory := .Values.memory -}}
{{- $workers := int .Values.workers -}}
{{- $gpus := int .Values.gpu.count -}}
{{- $request := add (int $memory.base) (mul $workers (add (int $memory.worker) (int $memory.model))) (mul $gpus (int .Values.gpu.hostMi)) -}}
{{- $decoding := mul $workers (int64 (default 512 .Values.settings.max_decode_mb)) 1000000 -}}
{{- $held := add $decoding (int64 (default 512000000 .Values.settings.max_pending_bytes)) -}}
requests:
  cpu: {{ $workers | quote }}
  memory: {{ $request }}Mi
limits:
  memory: {{ add $request (int $memory.spare) (div (add $held 1048575) 1048576) }}Mi
  {{- if $gpus }}
  {{ .Values.gpu.resource }}: {{ $gpus | quote }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "aig.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "aig.port-of" -}}
{{- $parts := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) | default (ternary "443" "80" (eq $parts.scheme "https")) -}}
{{- end -}}

{{/* Labels that the series of this release have, as the ServiceMonitor gives them. */}}
{{- define "aig.series" -}}
{{- default (printf "namespace=%q,service=%q" .Release.Namespace (printf "%s-metrics" (include "aig.fullname" .))) .Values.autoscaling.keda.selector -}}
{{- end -}}
