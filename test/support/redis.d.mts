export interface Redis {
  url: string;
  pid: number;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export function startRedis(port: number, directory: string): Promise<Redis>;
