// The tools that Longhaul gives for what four existing MCP servers do, by their names here and in our own words. Whether a
// tool works is not written down: docs/parity.md asks the catalogue. `partly` says what is missing of one that is there.

const noAddresses = 'primary_ipv4 and primary_ipv6 are null where a VM has no address that others reach';

export const PARITY = [
  {
    title: 'A. Hostodo: control of virtual servers',
    groups: [
      {
        title: 'VMs',
        tools: {
          list_vms: { meaning: "all of the caller's VMs and their state", partly: noAddresses },
          get_vm: { meaning: 'one VM', partly: noAddresses },
          list_images: 'operating systems that a VM can be made from',
          power_vm: 'start, shut down, reboot, stop, reset',
          reinstall_vm: 'a new disk from an image; needs a confirmation',
          rename_vm: 'another hostname; needs a confirmation',
        },
      },
      {
        title: 'Commands and files',
        tools: {
          exec_vm_command: 'a command of up to a minute, with its output',
          set_vm_exec_enabled: 'lets commands into a VM or keeps them out; needs a confirmation',
          start_vm_command: 'a command of up to two hours, answered with its id at once',
          get_vm_command_output: 'status and the ends of the output',
          read_vm_command_logs: 'output by byte offset',
          cancel_vm_command: 'kills a command',
          create_artifact_upload: 'an address to upload a file to',
          install_artifact: 'puts an uploaded file into a VM',
        },
      },
    ],
  },
  {
    title: 'B. Elestio: applications and their upkeep',
    groups: [
      {
        title: 'Account',
        tools: {
          whoami: 'the caller, scopes and projects',
          search_templates: 'applications that can be deployed',
          list_providers_and_sizes: 'regions, sizes and prices',
        },
      },
      {
        title: 'Projects',
        tools: {
          list_projects: "the caller's projects",
          list_project_members: 'who is in a project',
          create_project: 'a new project',
          delete_project: 'removes an empty project',
        },
      },
      {
        title: 'Services',
        tools: {
          list_services: 'services of a project',
          get_service: 'one service',
          get_service_credentials: 'how to log in to it',
          get_service_access: 'its addresses',
          get_service_logs: 'its logs',
          get_service_audits: 'what was done to it',
          deploy_template: 'a service from a template',
          deploy_cicd_target: 'a machine that pipelines deploy to',
          wait_for_deployment: 'waits, bounded, until it is deployed',
          restart_service: 'restarts the machine',
          restart_stack: 'restarts the application',
          shutdown_service: 'switches it off',
          poweron_service: 'switches it on',
          lock_service: 'refuses destructive actions from then on',
          unlock_service: 'allows them again',
          resize_service: 'another size of machine',
          change_service_version: 'another version of the application',
          move_service: 'into another project',
          delete_service: 'removes it, with or without its backups',
        },
      },
      {
        title: 'Billing',
        tools: {
          get_total_billing: 'costs of everything',
          get_project_billing: 'costs of a project',
        },
      },
      {
        title: 'Firewall, certificates, keys',
        tools: {
          get_firewall: 'its rules',
          update_firewall: 'other rules',
          disable_firewall: 'no rules',
          list_ssl_domains: 'domains with a certificate',
          add_ssl_domain: 'a domain and its certificate',
          remove_ssl_domain: 'removes a domain',
          list_ssh_keys: 'keys that may log in',
          add_ssh_key: 'lets a key in',
          remove_ssh_key: 'keeps it out',
        },
      },
      {
        title: 'Updates',
        tools: {
          enable_system_updates: 'updates of the system at a set time',
          disable_system_updates: 'stops them',
          enable_app_updates: 'updates of the application at a set time',
          disable_app_updates: 'stops them',
        },
      },
      {
        title: 'Backups and snapshots',
        tools: {
          list_local_backups: 'backups on the machine',
          create_local_backup: 'makes one',
          restore_local_backup: 'goes back to one',
          list_remote_backups: 'backups elsewhere',
          create_remote_backup: 'makes one',
          restore_remote_backup: 'goes back to one',
          enable_auto_backups: 'a backup each day',
          disable_auto_backups: 'stops them',
          list_snapshots: 'snapshots of the machine',
          create_snapshot: 'makes one',
          restore_snapshot: 'goes back to one',
          delete_snapshot: 'removes one',
        },
      },
      {
        title: 'Volumes',
        tools: {
          list_volumes: 'additional disks',
          attach_volume: 'adds a disk',
          resize_volume: 'makes it larger',
          detach_volume: 'takes it off, kept or not',
          delete_volume: 'removes it',
        },
      },
      {
        title: 'Pipelines',
        tools: {
          list_cicd_targets: 'machines that pipelines deploy to',
          list_pipelines: 'pipelines of a target',
          get_pipeline: 'one pipeline',
          create_pipeline_auto: 'a pipeline from a repository',
          create_pipeline_docker: 'a pipeline from an image',
          restart_pipeline: 'runs it again',
          stop_pipeline: 'stops it',
          get_pipeline_logs: 'its logs',
          add_pipeline_domain: 'a domain for it',
          remove_pipeline_domain: 'removes that domain',
        },
      },
    ],
  },
  {
    title: 'C. MCTL: a platform for teams',
    groups: [
      {
        title: 'Caller and tenants',
        tools: {
          whoami: 'the caller, scopes and projects',
          list_projects: 'tenants are projects here',
          get_project: 'one project with its quota',
          create_project: 'a new project',
          delete_project: 'removes a project after its services',
          get_project_usage: 'what is used of the quota',
        },
      },
      {
        title: 'Services',
        tools: {
          list_services: 'services of a project',
          get_service: 'how one stands',
          get_service_config: 'its configuration',
          get_service_logs: 'its logs',
          deploy_template: 'takes a new service on',
          change_service_version: 'deploys a version',
          update_service_config: 'other configuration and secrets',
          scale_service: 'more or fewer instances',
          rollback_service: 'back to an earlier version',
          retire_service: 'ends it',
          recommend_service_size: 'a size, by what was used',
        },
      },
      {
        title: 'Operations (a run of one is a job here)',
        tools: {
          list_operations: 'what can be done, with parameters and risk',
          get_operation: 'one of these',
          list_jobs: 'recent runs',
          get_job: 'how a run stands',
          read_job_logs: 'its log',
        },
      },
      {
        title: 'Incidents',
        tools: {
          list_incidents: 'by status, severity, service',
          get_incident: 'one incident',
          get_incident_summary: 'counts',
          acknowledge_incident: 'somebody sees to it',
          resolve_incident: 'it is over',
        },
      },
      {
        title: 'Domains, databases, previews, repositories',
        tools: {
          list_domains: 'domains of a project',
          add_domain: 'a domain, with what to put into DNS',
          verify_domain: 'looks whether that is there',
          remove_domain: 'removes it',
          provision_database: 'a database with its credentials',
          list_previews: 'preview environments',
          create_preview: 'one from an image or a branch, for a time',
          delete_preview: 'removes it',
          list_repos: 'repositories that are known',
          sync_repos: 'looks for new ones',
          grant_repo_access: 'lets a project use one',
        },
      },
    ],
  },
  {
    title: 'D. Elasticsearch: search',
    groups: [
      {
        title: 'Indices',
        tools: {
          list_indices: 'indices by pattern',
          get_mappings: 'fields of an index',
          search: 'a query',
          esql: 'an ES|QL query',
          get_shards: 'shards of an index',
        },
      },
    ],
  },
];
