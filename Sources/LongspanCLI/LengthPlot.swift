import Foundation
import LongspanKernels

/// Perplexity (on a logarithmic axis) and recall by length (each step twice as long), as SVG panels with a line a filter.
struct LengthPlot {
  let summary: LengthSummary

  private static let panelWidth = 360.0
  private static let panelHeight = 240.0
  private static let left = 64.0
  private static let top = 56.0
  private static let gap = 70.0
  private static let colors = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"]

  func write(to path: String) throws(LongspanError) {
    try OutputFile.write(svg, to: path)
  }

  var svg: String {
    let hasRecall = summary.rows.contains { $0.recall != nil }
    let panels = hasRecall ? 2 : 1
    let width = Self.left + Double(panels) * (Self.panelWidth + Self.gap)
    let height = Self.top + Self.panelHeight + 60 + 18 * Double(summary.filters.count)
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(width)) \(Int(height))\" font-family=\"sans-serif\" "
        + "font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      text(
        "\(summary.model), trained on \(summary.trainedLength) tokens", Self.left, 22, "start",
        "font-size=\"15\""),
    ]
    let logarithms = summary.rows.map { log10(max($0.perplexity, 1)) }
    let low = (logarithms.min() ?? 0).rounded(.down)
    let high = max(low + 1, (logarithms.max() ?? 1).rounded(.up))
    let decades = (Int(low)...Int(high)).map { (value: Double($0), label: "1e\($0)") }
    parts += panel("perplexity", x: Self.left, from: low, to: high, ticks: decades) {
      log10(max($0.perplexity, 1))
    }
    if hasRecall {
      let shares = (0...4).map { (value: Double($0) / 4, label: "\(25 * $0)%") }
      parts += panel(
        "recall", x: Self.left + Self.panelWidth + Self.gap, from: 0, to: 1, ticks: shares
      ) { $0.recall }
    }
    for (index, filter) in summary.filters.enumerated() {
      let y = Self.top + Self.panelHeight + 58 + 18 * Double(index)
      parts.append(
        "<line x1=\"\(Self.left)\" x2=\"\(Self.left + 24)\" y1=\"\(y - 4)\" y2=\"\(y - 4)\" stroke=\"\(color(index))\" "
          + "stroke-width=\"2\"/>")
      parts.append(text(filter, Self.left + 32, y, "start"))
    }
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  private func panel(
    _ title: String, x: Double, from low: Double, to high: Double, ticks: [(value: Double, label: String)],
    _ value: (LengthSummary.Row) -> Double?
  ) -> [String] {
    let lengths = summary.lengths
    func across(_ length: Int) -> Double {
      let index = Double(lengths.firstIndex(of: length) ?? 0)
      return x + (index + 0.5) * Self.panelWidth / Double(max(1, lengths.count))
    }
    func up(_ value: Double) -> Double {
      Self.top + Self.panelHeight * (1 - (value - low) / (high - low))
    }
    var parts = [text(title, x, Self.top - 10, "start")]
    for tick in ticks {
      parts.append(
        "<line x1=\"\(decimal(x, 1))\" x2=\"\(decimal(x + Self.panelWidth, 1))\" y1=\"\(decimal(up(tick.value), 1))\" "
          + "y2=\"\(decimal(up(tick.value), 1))\" stroke=\"#ddd\"/>")
      parts.append(text(tick.label, x - 6, up(tick.value) + 4, "end"))
    }
    for length in lengths {
      parts.append(text("\(length)", across(length), Self.top + Self.panelHeight + 18, "middle"))
    }
    parts.append(text("tokens", x + Self.panelWidth / 2, Self.top + Self.panelHeight + 36, "middle"))
    for (index, filter) in summary.filters.enumerated() {
      let points = summary.rows.filter { $0.filter == filter }.compactMap { row in
        value(row).map { "\(decimal(across(row.length), 1)),\(decimal(up($0), 1))" }
      }
      parts.append(
        "<polyline fill=\"none\" stroke=\"\(color(index))\" stroke-width=\"2\" points=\"\(points.joined(separator: " "))\"/>"
      )
    }
    return parts
  }

  private func color(_ index: Int) -> String { Self.colors[index % Self.colors.count] }

  private func text(
    _ text: String, _ x: Double, _ y: Double, _ anchor: String, _ attributes: String = ""
  ) -> String {
    "<text x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" text-anchor=\"\(anchor)\""
      + (attributes.isEmpty ? "" : " \(attributes)") + ">\(text.escapedForXML)</text>"
  }
}
