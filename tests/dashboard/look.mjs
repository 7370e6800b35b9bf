// A real browser on the dashboard.
//
//   node look.mjs URL failed EXECUTION   the failed execution says what failed, with its input, error, graph and events
//   node look.mjs URL list               the list shows rows, filters them, and changes while things run
//   node look.mjs URL play EXECUTION     hls.js plays the execution's HLS output, and renditions can be chosen
//   node look.mjs URL find NAME          one execution among many is found by a part of its file's name
//   node look.mjs URL signin             a wrong password is refused, the right one lets in, and signing out ends it
//   node look.mjs URL whole CLIP BROKEN  a person's day: upload, watch, play, open a failure, redrive, approve, reject
//   node look.mjs URL pages EXECUTION    every page, light, dark and on a phone: axe finds nothing serious
//
// Environment: SHOTS=folder keeps a picture of what was seen; CHROMIUM=path; EXPECT=a|b; USER_PASSWORD=user:password.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const [url, what, ...args] = process.argv.slice(2);
const [execution] = args;

function must(yes, text) {
  if (!yes) throw new Error(text);
}

// Asks the page again and again. Playwright's own waitForFunction evaluates text, which the page's policy forbids.
async function until(page, asked, argument, patience = 30_000) {
  for (const end = Date.now() + patience; Date.now() < end; ) {
    if (await page.evaluate(asked, argument)) return;
    await page.waitForTimeout(100);
  }
  throw new Error(`it does not come: ${asked}`);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--autoplay-policy=no-user-gesture-required'],
});

const faults = [];
const foreign = [];
/** Answers that a scenario provokes on purpose. */
const expected = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on('pageerror', (e) => faults.push(String(e)));
  page.on('console', (m) => {
    if (m.type() === 'error' && !expected.some((part) => m.text().includes(part))) faults.push(m.text());
  });
  page.on('request', (r) => {
    if (!r.url().startsWith(url) && !/^(blob|data):/.test(r.url())) foreign.push(r.url());
  });
  return page;
}

async function shot(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: true });
}

async function plays(page) {
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
  must((await page.locator('.media .notice').count()) === 0, 'the player complains');
  return size;
}

const scenarios = {
  async failed() {
    const page = await open();
    await page.goto(`${url}/#/executions/${execution}`);
    const card = page.getByRole('region', { name: 'What failed' });
    await card.waitFor();
    const text = await card.innerText();
    for (const part of (process.env.EXPECT ?? '').split('|').filter(Boolean)) {
      must(text.includes(part), `"${part}" is not in what failed:\n${text}`);
    }
    // The graph shows which state failed, and the state's panel what went in.
    await page.locator('g.state.FAILED [role=button]').first().click();
    const panel = page.getByRole('complementary', { name: /^State / });
    await panel.getByRole('button', { name: 'Flow' }).click();
    await panel.getByRole('heading', { name: 'Input', exact: true }).waitFor();
    must(page.url().includes('state='), 'the state has no link of its own');
    await page.getByRole('link', { name: 'Timeline' }).click();
    await page.locator('.line.FAILED').first().waitFor();
    await page.getByRole('link', { name: 'Events', exact: true }).click();
    await page.getByLabel('failures only').check();
    await page.locator('button.event.bad').first().click();
    await page.getByRole('region', { name: /^Event \d/ }).waitFor();
    must((await page.locator('script:not([src]), b.injected').count()) === 0, 'text from a file became markup');
    await shot(page, 'failed');
  },
  async list() {
    const page = await open();
    await page.goto(`${url}/#/executions`);
    await page.locator('.row').first().waitFor();
    await page.locator('.link.on').waitFor();
    const all = await page.locator('.row').count();
    await page.getByLabel('Status', { exact: true }).selectOption('FAILED');
    await until(
      page,
      (n) => {
        const rows = document.querySelectorAll('.row');
        return rows.length > 0 && rows.length < n && [...rows].every((r) => r.classList.contains('FAILED'));
      },
      all,
    );
    must(page.url().includes('status=FAILED'), 'a filter has no link of its own');
    await page.getByLabel('Status', { exact: true }).selectOption('');
    await page.getByLabel('File name').fill('no such file');
    await page.getByText('Nothing matches these filters.').waitFor();
    await page.getByLabel('File name').fill('');
    // A row that runs ends in place, without a reload.
    const running = page.locator('.row.RUNNING').first();
    await running.waitFor();
    const href = await running.locator('a').getAttribute('href');
    await page.locator(`.row.RUNNING a[href="${href}"] progress`).waitFor();
    // The overview shows the same, with its progress.
    const overview = await open();
    await overview.goto(`${url}/`);
    await overview.locator(`.run a[href="${href}"] progress`).waitFor();
    await shot(overview, 'overview');
    await page.locator(`.row.SUCCEEDED a[href="${href}"]`).waitFor({ timeout: 30_000 });
    // The keyboard reaches a row and opens it.
    await page.locator(`a[href="${href}"]`).focus();
    await page.keyboard.press('Enter');
    await page.locator('g.state.SUCCEEDED').first().waitFor();
    await shot(page, 'succeeded');
  },
  async play() {
    const page = await open();
    await page.goto(`${url}/#/executions/${execution}/media`);
    const size = await plays(page);
    await shot(page, 'play');
    console.log(`played ${size[0]}x${size[1]}`);
  },
  async find() {
    const page = await open();
    await page.goto(`${url}/#/executions`);
    await page.locator('.row').first().waitFor();
    const began = Date.now();
    await page.getByLabel('File name').fill(execution);
    await page.locator('.row', { hasText: execution }).waitFor();
    await until(page, () => document.querySelectorAll('.row').length === 1);
    console.log(`found within ${Date.now() - began} ms`);
  },
  async signin() {
    expected.push('401');
    const [user, password] = (process.env.USER_PASSWORD ?? ':').split(':');
    const page = await open();
    await page.goto(`${url}/`);
    await page.getByLabel('User').fill(user);
    await page.getByLabel('Password').fill('a wrong password');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('The user or the password is wrong').waitFor();
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.locator('.link.on').waitFor();
    await page.reload();
    await page.getByText(user).first().waitFor();
    const [cookie] = await page.context().cookies();
    must(cookie.httpOnly && cookie.sameSite === 'Strict', 'a script or another site could have the session');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Password').waitFor();
  },
  async whole() {
    const [clip, broken] = args;
    const page = await open();
    // A file is uploaded to the watched share and becomes an execution by itself.
    await page.goto(`${url}/#/upload`);
    await page.getByLabel('Files to upload').setInputFiles([clip, broken]);
    await page.getByText('It has landed.').nth(1).waitFor({ timeout: 60_000 });
    await shot(page, 'uploaded');
    await page.goto(`${url}/#/executions?machine=main`);
    await page.locator('.row.SUCCEEDED').first().waitFor({ timeout: 240_000 });
    await page.locator('.row.FAILED').first().waitFor({ timeout: 60_000 });
    await shot(page, 'list');
    // What failed, and where: the nested execution is one click away.
    await page.locator('.row.FAILED a').first().click();
    await page.getByRole('region', { name: 'What failed' }).waitFor();
    await shot(page, 'broken');
    await page.goBack();
    await page.locator('.row.SUCCEEDED a').first().click();
    await page.getByRole('link', { name: 'Media' }).click();
    await plays(page);
    await page.locator('.plot canvas').first().waitFor();
    await shot(page, 'media');
    // What failed for want of a file goes on once the file is there.
    await page.goto(`${url}/#/executions?machine=fetch`);
    await page.locator('.row.FAILED a').first().click();
    await page.getByRole('button', { name: 'Continue from the failed state' }).click();
    await page.locator('.badge.SUCCEEDED').first().waitFor();
    // A person approves one thing and rejects another.
    await page.goto(`${url}/#/approvals`);
    await page.getByRole('button', { name: 'Approve' }).first().click();
    await page.getByText('was approved').waitFor();
    await page.getByRole('button', { name: 'Reject…' }).first().click();
    await page.getByLabel(/Reason/).fill('the sound is out of step');
    await page.getByRole('button', { name: 'Reject', exact: true }).click();
    await page.getByText('was rejected').waitFor();
    await page.goto(`${url}/#/executions?machine=release`);
    await page.locator('.row.SUCCEEDED').waitFor();
    await page.locator('.row.FAILED', { hasText: 'the sound is out of step' }).waitFor();
    // A workflow is changed, with its faults said before it is saved, and rolled back.
    await page.goto(`${url}/#/workflows/fetch/edit`);
    const editor = page.locator('.cm-content');
    await editor.click();
    await page.keyboard.press('Control+a');
    await page.keyboard.insertText('{"StartAt": "Nowhere", "States": {"Done": {"Type": "Succeed"}}}');
    await page.locator('.problems .error').first().waitFor();
    must(await page.getByRole('button', { name: 'Save as a new version' }).isDisabled(), 'a faulty definition can be saved');
    await editor.click();
    await page.keyboard.press('Control+a');
    await page.keyboard.insertText('{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}');
    await page.getByText('Validation finds no problem').waitFor();
    await page.getByRole('button', { name: 'Save as a new version' }).click();
    await page.getByText('Saved on the dashboard').waitFor();
    await page.goto(`${url}/#/box/audit`);
    await page.getByText('PUT /machines/{name}').first().waitFor();
    await shot(page, 'audit');
  },
  async pages() {
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    const pages = [
      '', 'executions', 'approvals', 'workflows', 'workflows/main', 'workflows/main/definition', 'workflows/main/versions',
      'workflows/main/edit', 'workflows/main/try', 'upload', 'box', 'box/lanes', 'box/benchmarks', 'box/schedules', 'box/alarms',
      'box/notifications', 'box/settings', 'box/audit', `executions/${execution}`, `executions/${execution}/timeline`,
      `executions/${execution}/events`, `executions/${execution}/media`, `executions/${execution}/data`,
      `executions/${execution}/definition`,
    ];
    const looks = [{ colorScheme: 'light' }, { colorScheme: 'dark' }, { viewport: { width: 390, height: 844 } }];
    const found = [];
    for (const look of looks) {
      // axe is a script of ours that the page's policy would refuse; what the policy does is seen by the other scenarios.
      const page = await open({ ...look, bypassCSP: true });
      const name = look.viewport ? 'phone' : look.colorScheme;
      // How wide a page is may not depend on how much room this machine's disk has.
      await page.route('**/api/v1/shares', async (route) => {
        const response = await route.fetch();
        const said = await response.json();
        for (const share of said.shares) if (share.fileSystem) share.fileSystem.free = 8_888_888_888_888_888;
        await route.fulfill({ response, json: said });
      });
      for (const path of pages) {
        await page.goto(`${url}/#/${path}`);
        await page.waitForTimeout(800);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa'] }));
        for (const v of violations.filter((v) => ['serious', 'critical'].includes(v.impact))) {
          found.push(`${name} ${path}: ${v.id} at ${v.nodes[0].target.join(' ')}`);
        }
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (wider > 1) found.push(`${name} ${path}: wider than the screen by ${wider}`);
        await shot(page, `${name}-${path.replaceAll('/', '-') || 'overview'}`);
      }
      await page.context().close();
    }
    must(found.length === 0, found.join('\n'));
    console.log(`${pages.length} pages in ${looks.length} looks`);
  },
};

try {
  must(scenarios[what], `what to look at? one of ${Object.keys(scenarios).join(', ')}`);
  await scenarios[what]();
  must(faults.length === 0, `the page reported: ${faults.join('; ')}`);
  must(foreign.length === 0, `the page asked others: ${foreign.join(', ')}`);
  console.log(`${what}: seen`);
} finally {
  await browser.close();
}
