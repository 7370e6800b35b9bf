import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

// A compressed copy beside each file that is worth it: the box hands it to browsers that take it.
const packed = {
  name: 'packed',
  closeBundle() {
    const folder = (path) =>
      readdirSync(path).forEach((name) => {
        const file = join(path, name);
        if (statSync(file).isDirectory()) folder(file);
        else if (/\.(js|css|html|svg)$/.test(name)) {
          const small = gzipSync(readFileSync(file), { level: 9 });
          if (small.length < statSync(file).size * 0.9) writeFileSync(`${file}.gz`, small);
        }
      });
    folder('dist');
  },
};

const box = process.env.BOX ?? 'http://127.0.0.1:8080';

// Relative addresses, no inlined assets: the content security policy allows what the box itself serves and nothing else.
export default {
  base: './',
  plugins: [packed],
  build: { target: 'es2021', assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 700 },
  server: { proxy: { '/api': box, '/media': box } },
};
