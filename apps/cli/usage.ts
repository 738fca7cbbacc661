export const USAGE = `Usage: longhaul <command>

  up                            run everything: database, API, worker, a first VM
  doctor                        say what this machine lacks
  image                         build the guest image, unless it is there
  mcp --stdio                   serve MCP on stdin and stdout, for clients that know no HTTP
  migrate                       bring the database of DATABASE_URL up to date
  user create EMAIL             make a user and a project of the same name
  token create [--user EMAIL]   print a new token that may do everything its user may
  token revoke ID|TOKEN
  project list
  project confirm NAME [--person]  with --person, only a person may confirm what needs it; without, the phrase is enough
  vm list
  vm create HOSTNAME [--user EMAIL] [--exec]
  vm start|stop|reset ID|HOSTNAME`;

/** A fault of whoever typed the command; its message is all there is to show. */
export class UsageError extends Error {}
