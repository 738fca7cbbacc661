export interface Redis {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

export function startRedis(port: number, directory: string): Promise<Redis>;
