import Longspan
import LongspanKernels
import LongspanModels

/// Drafts what a text is known to go on with, with mistakes in it.
struct ScriptedDrafter: Drafter {
  /// What will be generated.
  var script: [Int32]
  /// The most tokens of a draft.
  var length: Int
  /// Every how-manieth drafted token is wrong; 0 for none.
  var mistakeEvery: Int
  /// The call of ``draft(after:limit:for:workspace:)`` that throws, counted from 1; 0 for none.
  var failingCall = 0

  private var written = 0
  private var drafted = 0
  private var calls = 0
  private var promptLength: Int?

  init(script: [Int32], length: Int, mistakeEvery: Int = 0, failingCall: Int = 0) {
    self.script = script
    self.length = length
    self.mistakeEvery = mistakeEvery
    self.failingCall = failingCall
  }

  func check(_ sequence: any ModelSequence) throws(LongspanError) {}

  /// The first append is the prompt, and those of single tokens are what was drawn.
  mutating func append(_ tokens: [Int32]) {
    if promptLength == nil { promptLength = tokens.count } else { written += tokens.count }
  }

  mutating func draft(
    after token: Int32, limit: Int, for sequence: any ModelSequence, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32] {
    calls += 1
    if calls == failingCall { throw LongspanError(.invalidArgument, "the draft fails") }
    let draft = script.dropFirst(written).prefix(min(length, limit))
    return draft.map { (token: Int32) -> Int32 in
      drafted += 1
      return mistakeEvery > 0 && drafted % mistakeEvery == 0 ? (token + 1) % 250 : token
    }
  }
}
