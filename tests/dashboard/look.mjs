// A real browser on the dashboard.
//
//   node look.mjs URL failed EXECUTION   the failed execution shows what failed, with its input and error
//   node look.mjs URL list               the list shows rows, filters them, and changes while things run
//   node look.mjs URL play EXECUTION     hls.js plays the execution's HLS output, and renditions can be chosen
//
// Environment: SHOTS=folder keeps a picture of what was seen; CHROMIUM=path; USER_PASSWORD=user:password.
import { chromium } from 'playwright-core';

const [url, what, execution] = process.argv.slice(2);
const [username, password] = (process.env.USER_PASSWORD ?? '').split(':');

function must(yes, text) {
  if (!yes) throw new Error(text);
}

// Asks the page again and again. Playwright's own waitForFunction evaluates text, which the page's policy forbids.
async function until(page, asked, argument) {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    if (await page.evaluate(asked, argument)) return;
    await page.waitForTimeout(100);
  }
  throw new Error(`it does not come: ${asked}`);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--autoplay-policy=no-user-gesture-required'],
});
try {
  const page = await browser.newPage({
    viewport: { width: Number(process.env.WIDTH ?? 1200), height: 900 },
    colorScheme: process.env.SCHEME ?? 'light',
    ...(username ? { httpCredentials: { username, password } } : {}),
  });
  const faults = [];
  const foreign = [];
  page.on('pageerror', (e) => faults.push(String(e)));
  page.on('console', (m) => {
    if (m.type() === 'error') faults.push(m.text());
  });
  page.on('request', (r) => {
    if (!r.url().startsWith(url) && !/^(blob|data):/.test(r.url())) foreign.push(r.url());
  });
  const shot = async (name) => {
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: true });
  };

  const pages = {
    async failed() {
      await page.goto(`${url}/#/executions/${execution}`);
      const card = page.getByRole('region', { name: 'What failed' });
      await card.waitFor();
      const text = await card.innerText();
      for (const part of (process.env.EXPECT ?? '').split('|').filter(Boolean)) {
        must(text.includes(part), `"${part}" is not in what failed:\n${text}`);
      }
      await page.locator('.visit.FAILED > details[open]').first().waitFor();
      must((await page.locator('script:not([src]), b.injected').count()) === 0, 'text from a file became markup');
      await shot('failed');
    },
    async list() {
      await page.goto(`${url}/`);
      await page.locator('.row').first().waitFor();
      await page.locator('.link.on').waitFor();
      await shot('list');
      const all = await page.locator('.row').count();
      await page.getByLabel('Status').selectOption('FAILED');
      await until(
        page,
        (n) => {
          const rows = document.querySelectorAll('.row');
          return rows.length > 0 && rows.length < n && [...rows].every((r) => r.classList.contains('FAILED'));
        },
        all,
      );
      await page.getByLabel('Status').selectOption('');
      await page.getByLabel('File name').fill('no such file');
      await page.getByText('Nothing matches these filters.').waitFor();
      await page.getByLabel('File name').fill('');
      // A row that runs ends in place, without a reload.
      const running = page.locator('.row.RUNNING').first();
      await running.waitFor();
      const href = await running.locator('a').getAttribute('href');
      await page.locator(`.row.RUNNING a[href="${href}"] progress`).waitFor();
      await shot('running');
      await page.locator(`.row.SUCCEEDED a[href="${href}"]`).waitFor({ timeout: 30_000 });
      // The keyboard reaches a row and opens it.
      await page.locator(`a[href="${href}"]`).focus();
      await page.keyboard.press('Enter');
      await page.getByRole('region', { name: 'States' }).waitFor();
      await shot('succeeded');
    },
    async play() {
      await page.goto(`${url}/#/executions/${execution}`);
      await page.getByRole('button', { name: /HLS/ }).first().click();
      const video = page.locator('video[data-hls]');
      await video.waitFor();
      await video.evaluate(async (v) => {
        v.muted = true;
        await v.play();
      });
      await until(page, () => document.querySelector('video[data-hls]')?.currentTime > 1);
      const size = await video.evaluate((v) => [v.videoWidth, v.videoHeight, v.error?.message ?? null]);
      must(size[0] > 0 && size[2] === null, `the video shows nothing: ${size}`);
      const choice = page.getByLabel(/Rendition/);
      if (await choice.count()) {
        const values = await choice.locator('option').evaluateAll((options) => options.map((o) => o.value));
        await choice.selectOption(values[values.length - 1]);
        await page.waitForTimeout(500);
      }
      must((await page.locator('.player .notice').count()) === 0, 'the player complains');
      await shot('play');
      console.log(`played ${size[0]}x${size[1]}`);
    },
  };
  must(pages[what], `what to look at? one of ${Object.keys(pages).join(', ')}`);
  await pages[what]();
  must(faults.length === 0, `the page reported: ${faults.join('; ')}`);
  must(foreign.length === 0, `the page asked others: ${foreign.join(', ')}`);
  console.log(`${what}: seen`);
} finally {
  await browser.close();
}
