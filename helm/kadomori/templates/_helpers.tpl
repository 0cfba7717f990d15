{{- define "kadomori.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "kadomori.labels" -}}
app.kubernetes.io/name: kadomori
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* Selector labels of one component: (list $ "control") */}}
{{- define "kadomori.selector" -}}
app.kubernetes.io/name: kadomori
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "kadomori.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{/* Nothing but what the program needs: no root, no privilege, no writable root file system. */}}
{{- define "kadomori.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "kadomori.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The control plane's configuration file: of its pods, and of the job that migrates before them. */}}
{{- define "kadomori.controlConfig" -}}
data_dir: /var/lib/kadomori
listen:
  grpc: ":7443"
  console: ":8443"
  metrics: ":9100"
public:
  grpc: {{ required "control.publicAddress: host:port that appliances reach" .Values.control.publicAddress | quote }}
  nats: {{ default .Values.nats.url .Values.control.publicNatsUrl | quote }}
{{- with .Values.control.console.ingress.host }}
console:
  names: [{{ . | quote }}]
{{- end }}
database:
  app_dsn_file: /etc/kadomori/postgres/app
  ingest_dsn_file: /etc/kadomori/postgres/ingest
  migrate_dsn_file: /etc/kadomori/postgres/migrate
  reporter_dsn_file: /etc/kadomori/postgres/reporter
nats:
  url: {{ required "nats.url: URL of the external cluster, tls://host:port" .Values.nats.url | quote }}
  credentials_file: /etc/kadomori/nats/credentials.yaml
  ca_file: /etc/kadomori/nats/ca.crt
pki:
  dir: /etc/kadomori/pki
log:
  level: {{ .Values.control.logLevel }}
  format: json
{{- end -}}
