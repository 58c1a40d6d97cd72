// A rule of textlint: the prose of docs says who does what, in words of the reader and in short sentences.
const { split } = require("sentence-splitter")
const { StringSource } = require("textlint-util-to-string")

const WORDS_OF_SENTENCE = 30

// What is found, and what to write instead. A space stands for any white space.
const EVERYWHERE = [
    ["(?:nobody|somebody|anybody|everybody|whoever)", "the daemon, the caller, the operator"],
    ["by hand", "manually"],
    ["(?:of|in|by|to|from|at|on|with) which", "a sentence of its own"],
    ["what [^.?!:;,]{3,50}? (?:is|are|was|were)", "a noun, or the actor first"],
    ["there (?:is|are) (?:\\w+ ){1,4}that", "the subject and its verb"],
    ["(?:is|are|was|were|be|been|being) (?:not |never |also )?told|tells? of|told of", "announces, reports, says"],
    ["(?:is|are) to (?:be|end|have|make|do|go|stand|come)", "must, should, will"],
    ["(?<!\\bthere )(?:is|are) no (?!longer|more|less|such)\\w+", "is not a"],
    ["rid of", "remove, uninstall"],
    ["will be others|as of nearly|thereof|therein|whereof|wherein|whereby|hitherto|whence|lest", "plain words"],
    ["(?:put|puts|putting|give|gives|given|giving) back|forgoes?|withdrawn|unsent|lets? go", "release, return"],
    ["(?:stands?|set|put) aside|(?:a|the|its|each) gates?|patience", "throttled, throttle"],
    ["standings|suspects|intake|scoreboard|adoption|vigil|pretence|complaints?", "the word of docs/glossary.md"],
]
// A participle without its actor. The verbs left out here mostly say how a thing is, not what happens to it.
const PASSIVE = [
    ["(?:is|are|was|were|been|being|gets?) (?:not |never |also |then |only |\\w+ly )?" +
        "(?!need|bas|call|nam|allow|requir|install|support|relat|limit|suppos|us)" +
        "(?:\\w{2,}ed|sent|made|written|kept|taken|given|seen|found|done|shown|chosen|read|put|brought|thrown|lost|left|built)" +
        "(?! by)", "who does it"],
]
const HOW_TO = /docs\/(?:how-to\/|tutorial)/

const compiled = (table) => table.map(([pattern, instead]) =>
    [new RegExp(`(?<![\\w-])(?:${pattern})(?![\\w-])`.replaceAll(" ", "\\s+"), "gi"), instead])
const RULES = compiled(EVERYWHERE)
const HOW_TO_RULES = compiled([...EVERYWHERE, ...PASSIVE])

module.exports = (context) => {
    const { Syntax, RuleError, report, locator } = context
    const rules = HOW_TO.test(context.getFilePath() ?? "") ? HOW_TO_RULES : RULES
    let made = false

    const check = (node, limit) => {
        if (made) return
        const source = new StringSource(node, {
            replacer: ({ node: inner, maskValue }) => inner.type === Syntax.Code ? maskValue("x") : undefined,
        })
        const found = (index, text) => report(node, new RuleError(text, {
            padding: locator.at(source.originalIndexFromIndex(index) ?? 0),
        }))
        // "exits with 1. Then" are two sentences for us, and one number for the splitter.
        for (const sentence of split(source.toString().replace(/\d(?=\.\s)/g, "x"))) {
            if (sentence.type !== "Sentence") continue
            const text = sentence.raw
            const words = text.split(/\s+/).filter((word) => /\w/.test(word)).length
            if (words > limit) found(sentence.range[0], `a sentence of ${words} words; ${WORDS_OF_SENTENCE} are the most`)
            if (text.endsWith("?")) continue
            for (const [pattern, instead] of rules) {
                for (const match of text.matchAll(pattern)) {
                    found(sentence.range[0] + match.index, `"${match[0].replace(/\s+/g, " ")}": write ${instead}`)
                }
            }
        }
    }
    return {
        // Programs make what stands between two of these.
        [Syntax.Html](node) { if (/^<!-- (?:made|python)/.test(node.value)) made = true; else if (/^<!-- end/.test(node.value)) made = false },
        [Syntax.Paragraph](node) { check(node, WORDS_OF_SENTENCE) },
        TableCell(node) { check(node, Infinity) },
    }
}
