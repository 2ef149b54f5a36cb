{{/* The name of all objects of a release. */}}
{{- define "stenograph.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels of an object. Takes a list of the root and the component. */}}
{{- define "stenograph.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
{{ include "stenograph.selector" . }}
{{- end }}

{{/* Labels that select the pods of a component. Takes a list of the root and the component. */}}
{{- define "stenograph.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The image of the recorder. */}}
{{- define "stenograph.recorderImage" -}}
{{- with .Values.image.repository }}{{ trimSuffix "/" . }}/{{ end }}stenograph-recorder:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Fields of a pod that all components share. Takes a list of the root and the user id. */}}
{{- define "stenograph.pod" -}}
{{- $root := index . 0 -}}
{{- $user := index . 1 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "stenograph.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Settings of the broker. Takes a list of the root and the role. */}}
{{- define "stenograph.natsEnv" -}}
{{- $nats := (index . 0).Values.nats -}}
{{- $role := index $nats.credentials (index . 1) -}}
- name: NATS_URL
  value: {{ required "nats.url is required, such as nats://nats.messaging.svc:4222" $nats.url | quote }}
{{- if eq $nats.credentials.kind "password" }}
- name: NATS_USER
  value: {{ $role.user | quote }}
- name: NATS_PASSWORD_FILE
  value: /run/secrets/nats/credential
{{- else if eq $nats.credentials.kind "token" }}
- name: NATS_TOKEN_FILE
  value: /run/secrets/nats/credential
{{- else if eq $nats.credentials.kind "nkey" }}
- name: NATS_NKEY_SEED_FILE
  value: /run/secrets/nats/credential
{{- else if eq $nats.credentials.kind "credentials" }}
- name: NATS_CREDENTIALS_FILE
  value: /run/secrets/nats/credential
{{- end }}
{{- if $nats.caSecret }}
- name: NATS_CA_FILE
  value: /run/secrets/nats-ca/ca.crt
{{- end }}
{{- if $nats.certificateSecret }}
- name: NATS_CERTIFICATE_FILE
  value: /run/secrets/nats-certificate/tls.crt
- name: NATS_CERTIFICATE_KEY_FILE
  value: /run/secrets/nats-certificate/tls.key
{{- end }}
{{- end }}

{{- define "stenograph.natsMounts" -}}
{{- $nats := .Values.nats -}}
{{- if ne $nats.credentials.kind "none" }}
- name: nats
  mountPath: /run/secrets/nats
  readOnly: true
{{- end }}
{{- if $nats.caSecret }}
- name: nats-ca
  mountPath: /run/secrets/nats-ca
  readOnly: true
{{- end }}
{{- if $nats.certificateSecret }}
- name: nats-certificate
  mountPath: /run/secrets/nats-certificate
  readOnly: true
{{- end }}
{{- end }}

{{/* Volumes with the broker's credentials. Takes a list of the root and the role. */}}
{{- define "stenograph.natsVolumes" -}}
{{- $nats := (index . 0).Values.nats -}}
{{- $role := index $nats.credentials (index . 1) -}}
{{- if ne $nats.credentials.kind "none" }}
- name: nats
  secret:
    secretName: {{ $role.secret }}
    defaultMode: 0440
    items:
      - key: {{ $role.key }}
        path: credential
{{- end }}
{{- if $nats.caSecret }}
- name: nats-ca
  secret:
    secretName: {{ $nats.caSecret }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- if $nats.certificateSecret }}
- name: nats-certificate
  secret:
    secretName: {{ $nats.certificateSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* A volume with the database's URL. Takes the reference to the Secret. */}}
{{- define "stenograph.databaseVolume" -}}
- name: database
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: url
{{- end }}

{{/* Settings as variables. Takes the map `settings`. */}}
{{- define "stenograph.settings" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Spreads the pods of a component over zones, and over nodes where that is required. Takes a list of the root, the component, and
     `required` or `preferred`. */}}
{{- define "stenograph.spread" -}}
{{- $labels := include "stenograph.selector" (list (index . 0) (index . 1)) -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $labels | nindent 8 }}
affinity:
  podAntiAffinity:
    {{- if eq (index . 2) "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- $labels | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $labels | nindent 14 }}
    {{- end }}
{{- end }}

{{/* Rules of a NetworkPolicy. */}}
{{- define "stenograph.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* The addresses of a rule: namespaces with labels, or all addresses. Takes the labels. */}}
{{- define "stenograph.namespaces" -}}
{{- with . -}}
to:
  - namespaceSelector:
      matchLabels:
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- end }}
