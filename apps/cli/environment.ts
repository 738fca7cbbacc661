/** What the `longhaul` commands read themselves; the API and the worker that `up` starts inherit the whole environment. */
export const ENVIRONMENT = {
  LONGHAUL_HOME: {
    default: './.longhaul; as root /var/lib/longhaul',
    description: 'Folder of everything that Longhaul keeps',
  },
  LONGHAUL_IMAGES: {
    default: 'images in LONGHAUL_HOME',
    description: 'Folder of guest images; when given, nothing is installed that builds them',
  },
  IMAGE_CATALOG: { default: 'not set', description: 'File with images of your own; docs/images.md' },
  DATABASE_URL: {
    default: 'the embedded PostgreSQL',
    description: 'PostgreSQL to use instead of the embedded one, which is then not started',
  },
  QUEUE_URL: {
    default: 'the database',
    description: 'Redis (redis://…) or PostgreSQL (postgres://…) that delivers jobs',
  },
  SECRETS_KEYS: {
    default: 'not set',
    description: 'Master keys of what is stored encrypted, as id:key,…; else SECRETS_KEY_FILE holds them',
  },
  SECRETS_KEY_FILE: {
    default: 'secrets.key in LONGHAUL_HOME',
    description: 'File of those keys, one id:key a line; made at the first start',
  },
  PORT: {
    default: 'that of last time, else 7777',
    description: 'Port of the API; a free one is taken, and said, where it is in use',
  },
  TLS_CERT_FILE: {
    default: 'not set',
    description: 'Certificate of the API, whose addresses begin with https then',
  },
  VM_ACCELERATOR: { default: 'auto', description: 'How QEMU runs guests: auto, kvm or tcg' },
  WORKER_HOSTS: { default: 'local', description: 'New VMs belong to the first of these hosts' },
  LONGHAUL_URL: {
    default: 'that of ready.json',
    description: 'MCP address of the server that `longhaul mcp --stdio` bridges to',
  },
  LONGHAUL_TOKEN: { default: 'that of ready.json', description: 'Token that `longhaul mcp --stdio` sends' },
  DEBUG: { default: 'not set', description: 'When set, a command that fails shows the stack of its error' },
} satisfies Record<string, { default: string; description: string }>;

/** The value of a variable; an empty one counts as not set. */
export const fromEnvironment = (name: keyof typeof ENVIRONMENT) => process.env[name] || undefined;
