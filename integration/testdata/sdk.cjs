// SPDX-License-Identifier: Apache-2.0
//
// Does fakeapi's task by an official SDK, which has its key and its base URL from
// the environment alone: streamed, with tools, until the model says that it is done.
// Then asks once without a stream; with OpenAI's, for embeddings, too.
//
//   node sdk.cjs anthropic|chat|responses
'use strict';
const fs = require('fs');
const assert = require('assert');

const has = {
  read_file: ({file_path: file}) => fs.readFileSync(file, 'utf8'),
  replace: ({file_path: file, old_string: from, new_string: to}) => {
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(from, to));
    return 'replaced';
  },
};
const names = Object.keys(has);
const parameters = {type: 'object', properties: {file_path: {type: 'string'}, old_string: {type: 'string'}, new_string: {type: 'string'}}, required: ['file_path']};
const task = {role: 'user', content: 'Change the word in note.txt.'};

const ways = {
  async anthropic() {
    const {default: Anthropic} = require('@anthropic-ai/sdk');
    const client = new Anthropic();
    const ask = {model: 'claude-sonnet-4-5', max_tokens: 1024, messages: [task]};
    const tools = names.map(name => ({name, input_schema: parameters}));
    for (;;) {
      let pieces = 0;
      const stream = client.messages.stream({...ask, tools}).on('streamEvent', () => pieces++);
      const message = await stream.finalMessage();
      assert(pieces > 4, 'streamed in ' + pieces);
      ask.messages.push({role: 'assistant', content: message.content});
      const uses = message.content.filter(c => c.type === 'tool_use');
      if (uses.length === 0) break;
      ask.messages.push({role: 'user', content: uses.map(u => ({type: 'tool_result', tool_use_id: u.id, content: has[u.name](u.input)}))});
    }
    const counted = await client.messages.countTokens({model: ask.model, messages: [task]});
    assert.equal(counted.input_tokens, 7);
    return (await client.messages.create({...ask, messages: [task]})).content[0].text;
  },

  async chat() {
    const client = new (require('openai').default)();
    const ask = {model: 'gpt-5', messages: [task]};
    const tools = names.map(name => ({type: 'function', function: {name, parameters}}));
    for (;;) {
      let pieces = 0;
      const stream = client.chat.completions.stream({...ask, tools}).on('chunk', () => pieces++);
      const {message} = (await stream.finalChatCompletion()).choices[0];
      assert(pieces > 1, 'streamed in ' + pieces);
      ask.messages.push(message);
      if (!message.tool_calls?.length) break;
      for (const c of message.tool_calls) {
        ask.messages.push({role: 'tool', tool_call_id: c.id, content: has[c.function.name](JSON.parse(c.function.arguments))});
      }
    }
    await embeddings(client);
    return (await client.chat.completions.create({...ask, messages: [task]})).choices[0].message.content;
  },

  async responses() {
    const client = new (require('openai').default)();
    const ask = {model: 'gpt-5', input: [task]};
    const tools = names.map(name => ({type: 'function', name, parameters, strict: false}));
    for (;;) {
      let pieces = 0;
      const stream = client.responses.stream({...ask, tools}).on('event', () => pieces++);
      const {output} = await stream.finalResponse();
      assert(pieces > 4, 'streamed in ' + pieces);
      const calls = output.filter(o => o.type === 'function_call');
      if (calls.length === 0) break;
      for (const c of calls) {
        ask.input.push({type: c.type, call_id: c.call_id, name: c.name, arguments: c.arguments});
        ask.input.push({type: 'function_call_output', call_id: c.call_id, output: has[c.name](JSON.parse(c.arguments))});
      }
    }
    await embeddings(client);
    return (await client.responses.create({...ask, input: [task]})).output_text;
  },
};

async function embeddings(client) {
  for (const encoding_format of [undefined, 'float']) {
    const {data} = await client.embeddings.create({model: 'text-embedding-3-small', input: 'word', encoding_format});
    assert.deepEqual(Array.from(data[0].embedding), [0.5, -1, 2]);
  }
}

ways[process.argv[2]]().then(text => console.log('said: ' + text), e => {
  console.error(e);
  process.exit(1);
});
