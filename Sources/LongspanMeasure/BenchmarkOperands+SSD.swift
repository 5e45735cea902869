import Foundation
import LongspanKernels

/// The parameters of an SSD layer of `heads` heads.
struct SSDParameters {
  let decay: [Float]
  let skip: [Float]
  let rule: TimeStepRule

  /// - Parameter keep: about so many percent of the tokens are kept, 0 for a rule without a filter.
  init(heads: Int, keep: Int) {
    decay = [Float](repeating: -1, count: heads)
    skip = [Float](repeating: 1, count: heads)
    // steps are filled evenly between -1 and 1, and softplus keeps their order
    let lowest = 1 - 2 * Double(keep) / 100
    let threshold = keep < 100 ? Float(log1p(exp(lowest - 1))) : -1
    rule = TimeStepRule(
      bias: [Float](repeating: -1, count: heads), appliesSoftplus: true,
      filter: keep > 0 ? TimeStepFilter(thresholds: [Float](repeating: threshold, count: heads)) : nil)
  }
}

extension BenchmarkOperands {
  /// A chunked scan of one sequence, or an update of as many sequences as there are rows.
  static func ssdScan(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ out: inout MutableSpan<Float>, _ state: inout MutableSpan<Float>,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    let isScan = kernel == .ssdScan
    let rows = s[isScan ? "L" : "B"]
    let groups = TensorLayout(
      type, tokens: rows, heads: s["G"], columns: s["N"], tokenStride: 2 * s["G"] * s["N"], headStride: s["N"]
    )
    let both = inputs.third.buffer.span.bytes.extracting(inputs.third.range(slot))
    let offset = min(both.byteCount, s["G"] * s["N"] * type.byteCount)
    let decay = inputs.ssd.decay.span
    let skip = inputs.ssd.skip.span
    try context.ssdScan(
      isScan ? .scan(.chunked) : .update,
      input: try inputs.first.view(slot, TensorLayout(type, tokens: rows, heads: s["H"], columns: s["P"])),
      steps: try inputs.second.view(slot, TensorLayout(type, tokens: rows, columns: s["H"])),
      rule: inputs.ssd.rule, decay: decay, b: try TensorView(both, groups),
      c: try TensorView(both.extracting(offset..<both.byteCount), groups), skip: skip, gate: nil,
      offsets: isScan ? nil : (0...Int64(rows)).map { $0 }, state: &state, workspace: &workspace, into: &out)
  }
}
