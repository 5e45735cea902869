import Longspan
import LongspanKernels

/// Drafting and verifying (Leviathan et al. 2023, arXiv:2211.17192), with drawing in place of their acceptance rule: the
/// sampler draws from each row of a checked draft in order, and the draft is text for as long as it foretold what was drawn.
/// So the tokens and the sampler's state are those of ordinary decoding, for any sampler.
extension Generator {
  /// Has the model read the token that was drawn last and a draft after it, in one pass.
  mutating func check(_ token: Int32) throws(LongspanError) {
    let draft = try makeDraft(after: token)
    let hidden = try sequence.read([token] + draft, workspace: &workspace)
    run = DraftRun(draft: draft, after: sequence.count - draft.count, isCheck: true)
    // it is read, even if there should be no memory for logits
    pending = nil
    run.logits = try model.logits(of: hidden, rows: 0..<draft.count + 1, workspace: &workspace)
    draftStatistics?.addPass(drafted: draft.count)
  }

  private mutating func makeDraft(after token: Int32) throws(LongspanError) -> [Int32] {
    // a pass gives one token more than was drafted
    let limit = tokenLimit.map { $0 - generated.count - 1 } ?? .max
    guard limit > 0 else { return [] }
    let draft = try drafter?.draft(after: token, limit: limit, for: sequence, workspace: &workspace) ?? []
    let stopTokens = stopTokens
    return Array(draft.prefix(limit).prefix { !stopTokens.contains($0) })
  }
}
