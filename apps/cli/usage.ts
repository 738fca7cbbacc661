export const USAGE = `Usage: longhaul <command>

  up                            run everything: database, API, worker, a first VM
  doctor                        say what this machine lacks
  image                         build the guest image, unless it is there
  mcp --stdio                   serve MCP on stdin and stdout, for clients that know no HTTP
  migrate                       bring the database of DATABASE_URL up to date
  key rotate                    put all that is stored encrypted under a new master key
  key rotate-signing            let a new key sign ID tokens; the one before it still verifies

  user create EMAIL [--staff] [--password-stdin]   make a user and a project of the same name
  user password EMAIL                              set a password, which is read from standard input
  user list
  user suspend|flag|restore EMAIL                  a flagged one may look, but change nothing

  token create [--user EMAIL] [--name TEXT] [--scopes a,b] [--project NAME]… [--vm HOSTNAME]… [--expires 30d]
                                print a new token; without options it may do everything its user may
  token list [--user EMAIL]
  token revoke ID|TOKEN

  client create NAME --user EMAIL [--scopes a,b] [--project NAME]… [--vm HOSTNAME]…
                                an OAuth client for a machine, in that user's name; prints its id and secret
  client list [--user EMAIL]
  client revoke ID

  project list
  project add-member NAME EMAIL [--role owner|admin|member|viewer]
  project role NAME EMAIL ROLE
  project remove-member NAME EMAIL
  project quota NAME [--vms N] [--cpus N] [--memory-mb N] [--disk-gb N] [--jobs N] [--concurrency N]
                                set what its VMs may have together and how many jobs may be unfinished; shows limits and use
  project confirm NAME [--person]  with --person, only a person may confirm what needs it; without, the phrase is enough

  switch list
  switch mcp|exec off --reason TEXT [--cancel]     for everybody at once; --cancel ends commands that run
  switch mcp|exec on

  audit verify [--since DATE] [--head NUMBER:DIGEST]  name events that were changed, removed, inserted or reordered;
                                --head is an end of the chain that an earlier run has printed
  audit expire                  drop what AUDIT_RETENTION_DAYS keeps no longer, where workers may not

  vm list
  vm create HOSTNAME [--user EMAIL] [--exec]
  vm start|stop|reset ID|HOSTNAME
  vm adopt HOSTNAME --agent SOCKET [--qmp SOCKET] [--project NAME] [--host NAME] [--exec]
                                put a VM that runs under QEMU already in Longhaul's hands
  vm adopt HOSTNAME --ssh USER@HOST[:PORT] --host-key SHA256:… (--key FILE | --password-stdin) [--project NAME] …
                                the same for any machine, by SSH
  vm forget ID|HOSTNAME         take an adopted one out again; the machine is not touched`;

/** A fault of whoever typed the command; its message is all there is to show. */
export class UsageError extends Error {}
